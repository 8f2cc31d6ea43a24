"""One blocking reader for each pool that somebody follows; it hands every event to those who follow its task.

A subscriber registers first and reads its task's history afterwards, so what happens in between is in both
and is told apart by its id: no gap, no repeat. Its queue is bounded: one that falls behind is told so.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from contextlib import suppress

from daybreak_server.api.metrics import Metrics
from daybreak_server.api.streams import frames
from daybreak_server.api.streams.frames import Frame
from daybreak_server.domain.ids import TaskId
from daybreak_server.ports.store import EventLog, EventsTrimmedError, StoreError, StoreUnavailableError

log = logging.getLogger("daybreak.api.streams")

QUEUE_LIMIT = 1024
"""Frames that wait for one subscriber; frames are shared, so this bounds references, not copies."""
_BATCH = 128
_BACKOFF_S = (0.1, 2.0)


class Subscriber:
    """A bounded queue of frames. Not for threads: all calls come from the event loop."""

    def __init__(self, task: TaskId, *, limit: int = QUEUE_LIMIT) -> None:
        self.task = task
        self.overflowed = False
        self.closed = False
        self._limit = limit
        self._queue: deque[Frame] = deque()
        self._wake = asyncio.Event()

    def push(self, frame: Frame) -> None:
        """Add a frame; one too many empties the queue and marks the subscriber as behind."""
        if self.overflowed or self.closed:
            return
        if len(self._queue) >= self._limit:
            self.fall_behind()
        else:
            self._queue.append(frame)
            self._wake.set()

    def fall_behind(self) -> None:
        """Frames are missing from here on, until :meth:`caught_up`."""
        self._queue.clear()
        self.overflowed = True
        self._wake.set()

    def pop(self) -> Frame | None:
        """The next frame, if there is one."""
        return self._queue.popleft() if self._queue else None

    def caught_up(self) -> None:
        """Take frames again after an overflow."""
        self.overflowed = False

    def close(self) -> None:
        """The server is going: end soon."""
        self.closed = True
        self._wake.set()

    async def wait(self, timeout_s: float) -> bool:
        """Until there is something to do; ``False`` when the time is over first."""
        if self._queue or self.overflowed or self.closed:
            return True
        self._wake.clear()
        try:
            await asyncio.wait_for(self._wake.wait(), timeout_s)
        except TimeoutError:
            return False
        return True


class Feed:
    """A pool's live events. Its reader runs while there is a subscriber."""

    def __init__(self, pool: str, events: EventLog, metrics: Metrics) -> None:
        self.pool = pool
        self.waiting: dict[TaskId, None] = {}
        """Tasks that wait and are followed, in the order in which their places are looked up."""
        self._events = events
        self._metrics = metrics
        self._subscribers: dict[TaskId, set[Subscriber]] = {}
        self._reader: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    @property
    def reading(self) -> bool:
        """Whether the reader runs."""
        return self._reader is not None

    def attach(self, subscriber: Subscriber) -> None:
        """From now on it gets its task's events; the first one starts the reader."""
        self._subscribers.setdefault(subscriber.task, set()).add(subscriber)
        if self._reader is None:
            self._ready = asyncio.Event()
            self._reader = asyncio.create_task(self._read(self._ready), name=f"follow {self.pool}")

    def detach(self, subscriber: Subscriber) -> None:
        """It gets nothing more; the last one stops the reader."""
        followers = self._subscribers.get(subscriber.task)
        if followers is not None:
            followers.discard(subscriber)
            if not followers:
                del self._subscribers[subscriber.task]
                self.waiting.pop(subscriber.task, None)
        if not self._subscribers and self._reader is not None:
            self._reader.cancel()
            self._reader = None

    async def live(self, timeout_s: float) -> None:
        """Wait until the reader knows where it begins: history read from then on leaves no gap.

        :raises StoreUnavailableError: when the store does not say so in time.
        """
        try:
            await asyncio.wait_for(self._ready.wait(), timeout_s)
        except TimeoutError as exc:
            raise StoreUnavailableError("the event log does not answer") from exc

    def tell(self, task: TaskId, frame: Frame) -> None:
        """Hand a frame to all who follow the task."""
        for subscriber in self._subscribers.get(task, ()):
            subscriber.push(frame)

    def close(self) -> None:
        """End all subscribers."""
        for followers in self._subscribers.values():
            for subscriber in followers:
                subscriber.close()

    async def stopped(self) -> None:
        """Stop the reader, whoever is still there, and wait for it."""
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()
            with suppress(asyncio.CancelledError):
                await reader

    async def _read(self, ready: asyncio.Event) -> None:
        cursor: str | None = None
        delay_s = _BACKOFF_S[0]
        while True:
            try:
                if cursor is None:
                    cursor = await self._events.tail(self.pool)
                    if ready.is_set():
                        self._fall_behind()
                    ready.set()
                async for batch in self._events.follow(self.pool, after=cursor):
                    delay_s = _BACKOFF_S[0]
                    for count, event in enumerate(batch, 1):
                        if event.task in self._subscribers:
                            self._deliver(event.task, frames.logged(event))
                        cursor = event.id
                        if not count % _BATCH:
                            await asyncio.sleep(0)  # let subscribers drain, or a burst overflows them all
            except EventsTrimmedError:
                log.warning("pool %s: events were trimmed before they were read; all begin again", self.pool)
                cursor = None
            except StoreError as exc:
                log.warning("pool %s: the event log is away (%s); again in %.1f s", self.pool, exc, delay_s)
            except Exception:
                log.exception("pool %s: the reader failed; again in %.1f s", self.pool, delay_s)
            await asyncio.sleep(delay_s * random.uniform(0.8, 1.2))
            delay_s = min(delay_s * 2, _BACKOFF_S[1])

    def _fall_behind(self) -> None:
        """Nobody got what was trimmed: all are told so, once the reader knows where it goes on."""
        for followers in self._subscribers.values():
            for subscriber in followers:
                subscriber.fall_behind()

    def _deliver(self, task: TaskId, frame: Frame) -> None:
        if frame.type in ("queued", "retrying"):
            self.waiting[task] = None
        elif frame.type == "started" or frame.terminal:
            self.waiting.pop(task, None)
        self._metrics.events_relayed.inc(len(self._subscribers[task]))
        self.tell(task, frame)


class Hub:
    """All feeds of this process."""

    def __init__(self, events: EventLog, metrics: Metrics) -> None:
        self._events = events
        self._metrics = metrics
        self._feeds: dict[str, Feed] = {}
        self.closing = False

    def feed(self, pool: str) -> Feed:
        """The pool's feed."""
        if pool not in self._feeds:
            self._feeds[pool] = Feed(pool, self._events, self._metrics)
        return self._feeds[pool]

    def begin_close(self) -> None:
        """End all streams soon, and take no new ones: the server is going."""
        self.closing = True
        for feed in self._feeds.values():
            feed.close()

    async def close(self) -> None:
        """End all streams and stop all readers."""
        self.begin_close()
        for feed in self._feeds.values():
            await feed.stopped()
