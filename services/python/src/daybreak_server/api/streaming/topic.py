"""One followed task: its subscribers, and its latest events for those who come back.

All calls come from the event loop; nothing here is for threads.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from daybreak_server.api.streaming.frames import EventKey, Frame

QUEUE_LIMIT = 1024
"""Frames that wait for one subscriber; frames are shared, so this bounds references, not copies."""
RECENT_LIMIT = 512
"""Frames kept of a task while it is followed: a client that comes back is served without asking the store."""
BATCH = 256
START: EventKey = (0, 0)


class Subscriber:
    """A bounded queue of frames, for one reader."""

    __slots__ = ("_limit", "_queue", "_quiet_at", "_timer", "_waiter", "closed", "overflowed")

    def __init__(self, *, limit: int = QUEUE_LIMIT) -> None:
        self.overflowed = False
        self.closed = False
        self._limit = limit
        self._queue: deque[Frame] = deque()
        self._waiter: asyncio.Future[bool] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._quiet_at = 0.0

    def push(self, frame: Frame) -> None:
        """Add a frame; one too many empties the queue and marks the subscriber as behind."""
        if self.overflowed or self.closed:
            return
        if len(self._queue) >= self._limit:
            self.mark_lagging()
        else:
            self._queue.append(frame)
            self._wake()

    def mark_lagging(self) -> None:
        """Frames are missing from here on, until :meth:`resume`."""
        self._queue.clear()
        self.overflowed = True
        self._wake()

    def resume(self) -> None:
        """Take frames again after an overflow."""
        self.overflowed = False

    def pop(self) -> list[Frame]:
        """What waits, but not more than is sent at once."""
        queue = self._queue
        return [queue.popleft() for _ in range(min(BATCH, len(queue)))]

    def close(self) -> None:
        """The server is going: end soon."""
        self.closed = True
        self._wake()

    def leave(self) -> None:
        """The reader has gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def wait(self, timeout_s: float) -> bool:
        """Until there is something to do; ``False`` when the time is over first."""
        if self._queue or self.overflowed or self.closed:
            return True
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        self._quiet_at = loop.time() + timeout_s
        # One timer for all waits: to set one for each would cost as much as an event does.
        if self._timer is None:
            self._timer = loop.call_at(self._quiet_at, self._look, loop)
        try:
            return await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Whether it has been quiet for so long; if not, look again when it might be."""
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        if loop.time() < self._quiet_at:
            self._timer = loop.call_at(self._quiet_at, self._look, loop)
        else:
            self._waiter.set_result(False)


class Topic:
    """The subscribers of one task, and its latest frames: all behind ``floor``, when that is known."""

    def __init__(self) -> None:
        self.subscribers: set[Subscriber] = set()
        self.floor: EventKey | None = None
        self._recent: deque[Frame] = deque()
        self._dropped: EventKey | None = None
        self._loading: asyncio.Event | None = None

    @contextmanager
    def loading(self) -> Iterator[None]:
        """While one subscriber reads history from the store, others may wait for what it learns."""
        if self._loading is not None:
            yield
            return
        self._loading = asyncio.Event()
        try:
            yield
        finally:
            self._loading.set()
            self._loading = None

    async def loaded(self) -> None:
        """When nobody reads history any more."""
        if self._loading is not None:
            await self._loading.wait()

    @property
    def kept(self) -> int:
        """How many frames are kept."""
        return len(self._recent)

    def log(self, frame: Frame) -> None:
        """The task's next event."""
        self._recent.append(frame)
        if len(self._recent) > RECENT_LIMIT:
            self._drop_first()
        self.tell(frame)

    def tell(self, frame: Frame) -> None:
        """Something to pass on that is not in the log."""
        for subscriber in self.subscribers:
            subscriber.push(frame)

    def behind(self, after: EventKey | None) -> list[Frame] | None:
        """The events behind ``after``, or ``None`` when not all of them are kept."""
        start = after or START
        if self.floor is None or start < self.floor:
            return None
        return [frame for frame in self._recent if frame.key is not None and frame.key > start]

    def learn(self, after: EventKey | None, history: Sequence[Frame]) -> None:
        """Keep history that was read from the store behind ``after`` while the channel was live."""
        start = after or START
        if self.floor is not None and self.floor <= start:
            return
        newest = (history[-1].key if history else None) or start
        if self._dropped is not None and self._dropped > newest:
            return  # between this history and what is kept there is a gap
        self._recent = deque([*history, *self._later(newest)])
        self.floor = start
        while len(self._recent) > RECENT_LIMIT:
            self._drop_first()

    def forget(self) -> None:
        """Keep nothing of what was: events have been missed, or there is no room."""
        self._dropped = self._recent[-1].key if self._recent else self._dropped
        self._recent.clear()
        self.floor = None

    def _later(self, key: EventKey) -> Iterable[Frame]:
        return (frame for frame in self._recent if frame.key is not None and frame.key > key)

    def _drop_first(self) -> None:
        self._dropped = self._recent.popleft().key
        if self.floor is not None:
            self.floor = self._dropped
