"""A topic pushes the events of one task to the task's subscribers, and caches the latest events for clients that
reconnect.

All calls come from the event loop; nothing here is thread-safe.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from daybreak_server.api.streaming.frames import EventKey, Frame

QUEUE_LIMIT = 1024
"""The maximum number of frames in a subscriber's queue. A queue holds references to frames that subscribers share."""
RECENT_LIMIT = 512
"""The maximum number of frames in the cache of a task, for clients that reconnect while others follow the task."""
BATCH = 256
START: EventKey = (0, 0)


class Subscriber:
    """A bounded queue of frames for one reader."""

    __slots__ = ("_limit", "_queue", "_quiet_at", "_timer", "_waiter", "closed", "lagging")

    def __init__(self, *, limit: int = QUEUE_LIMIT) -> None:
        self.lagging = False
        self.closed = False
        self._limit = limit
        self._queue: deque[Frame] = deque()
        self._waiter: asyncio.Future[bool] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._quiet_at = 0.0

    def push(self, frame: Frame) -> None:
        """Add a frame. If the queue is full, empty it and mark the subscriber as lagging."""
        if self.lagging or self.closed:
            return
        if len(self._queue) >= self._limit:
            self.mark_lagging()
        else:
            self._queue.append(frame)
            self._wake()

    def mark_lagging(self) -> None:
        """Drop all frames until :meth:`resume`."""
        self._queue.clear()
        self.lagging = True
        self._wake()

    def resume(self) -> None:
        """Accept frames again."""
        self.lagging = False

    def pop(self) -> list[Frame]:
        """The queued frames, at most one batch."""
        queue = self._queue
        return [queue.popleft() for _ in range(min(BATCH, len(queue)))]

    def close(self) -> None:
        """Ask the reader to end soon, because the server is shutting down."""
        self.closed = True
        self._wake()

    def leave(self) -> None:
        """Stop the timer; the reader calls this when it ends."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def wait(self, timeout_s: float) -> bool:
        """Wait until a frame is queued, or the subscriber lags or is closed. Returns ``False`` after the timeout."""
        if self._queue or self.lagging or self.closed:
            return True
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        self._quiet_at = loop.time() + timeout_s
        # All waits of a subscriber share one timer. A timer for each wait would cost as much as sending an event.
        if self._timer is None:
            self._timer = loop.call_at(self._quiet_at, self._check_quiet, loop)
        try:
            return await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(True)

    def _check_quiet(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the wait if its timeout has passed. Otherwise set the timer again: it was set for an earlier wait."""
        self._timer = None
        if self._waiter is None or self._waiter.done():
            return
        if loop.time() < self._quiet_at:
            self._timer = loop.call_at(self._quiet_at, self._check_quiet, loop)
        else:
            self._waiter.set_result(False)


class Topic:
    """The subscribers of one task, and its cached frames.

    The cache has all events after ``floor``. If ``floor`` is ``None``, any event may be missing from the cache.
    """

    def __init__(self) -> None:
        self.subscribers: set[Subscriber] = set()
        self.floor: EventKey | None = None
        self._recent: deque[Frame] = deque()
        self._dropped: EventKey | None = None
        self._loading: asyncio.Event | None = None

    @contextmanager
    def loading(self) -> Iterator[None]:
        """A context for reading history from the store. Other subscribers wait in :meth:`wait_loaded` until it ends."""
        if self._loading is not None:
            yield
            return
        self._loading = asyncio.Event()
        try:
            yield
        finally:
            self._loading.set()
            self._loading = None

    async def wait_loaded(self) -> None:
        """Wait until no subscriber is reading history."""
        if self._loading is not None:
            await self._loading.wait()

    @property
    def cached(self) -> int:
        """The number of cached frames."""
        return len(self._recent)

    def append(self, frame: Frame) -> None:
        """Cache the next event of the task's log, and push it to all subscribers."""
        self._recent.append(frame)
        if len(self._recent) > RECENT_LIMIT:
            self._drop_first()
        self.publish(frame)

    def publish(self, frame: Frame) -> None:
        """Push a frame to all subscribers without caching it."""
        for subscriber in self.subscribers:
            subscriber.push(frame)

    def events_after(self, after: EventKey | None) -> list[Frame] | None:
        """The events after ``after``, or ``None`` if some of them are not cached."""
        start = after or START
        if self.floor is None or start < self.floor:
            return None
        return [frame for frame in self._recent if frame.key is not None and frame.key > start]

    def cache_history(self, after: EventKey | None, history: Sequence[Frame]) -> None:
        """Cache ``history``: the events after ``after``, read from the store while this topic received new events."""
        start = after or START
        if self.floor is not None and self.floor <= start:
            return
        newest = (history[-1].key if history else None) or start
        if self._dropped is not None and self._dropped > newest:
            return  # There is a gap between this history and the cached frames.
        self._recent = deque([*history, *self._later_than(newest)])
        self.floor = start
        while len(self._recent) > RECENT_LIMIT:
            self._drop_first()

    def drop_history(self) -> None:
        """Empty the cache. This is needed if events were missed, or if all caches of a pool together are too large."""
        self._dropped = self._recent[-1].key if self._recent else self._dropped
        self._recent.clear()
        self.floor = None

    def _later_than(self, key: EventKey) -> Iterable[Frame]:
        return (frame for frame in self._recent if frame.key is not None and frame.key > key)

    def _drop_first(self) -> None:
        self._dropped = self._recent.popleft().key
        if self.floor is not None:
            self.floor = self._dropped
