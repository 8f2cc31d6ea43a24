"""Distributes a pool's live events to the subscribers of its tasks.

A pool's :class:`Feed` has one blocking reader of the event log, whatever the number of clients. The reader runs only
while somebody subscribes. It hands each event to the event's :class:`Topic`, which pushes it to all subscribers of the
task; an event is encoded once (:class:`Frame`).

A subscriber misses no event between history and live events, and receives none twice. It first attaches to the feed,
then waits until the reader knows its position in the log (:meth:`Feed.wait_live`), and only then reads the task's
history. An event that arrives between these steps is both in the history and in the feed. The subscriber recognizes the
second copy by its id, and drops it.

A topic also caches recent frames, so that a client that reconnects while others follow the task is served without a
read from the store. :data:`CACHE_LIMIT` bounds the frames cached by a feed. The queue of each subscriber is bounded
too. If it overflows, or if events were trimmed before the reader saw them, the subscriber is marked as lagging. It then
gets a snapshot (``reset``) instead of the events, or, if its subscription is lossless, the events that the store has.

While the store is down, the reader retries with backoff, and subscribers stay connected.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from daybreak_server.api.asyncio_tasks import TaskReaper
from daybreak_server.api.streaming import frames
from daybreak_server.api.streaming.frames import Frame
from daybreak_server.api.streaming.topic import Subscriber, Topic
from daybreak_server.domain.ids import TaskId
from daybreak_server.domain.tasks import EventRecord
from daybreak_server.observability.gateway_metrics import GatewayMetrics
from daybreak_server.ports.events import EventLog
from daybreak_server.ports.store_errors import EventsTrimmedError, StoreError, StoreUnavailableError

log = logging.getLogger("daybreak.api.streams")

CACHE_LIMIT = 200_000
"""How many frames a feed caches at most, for clients that reconnect (about 80 MB). If a new frame takes the feed over
the limit, the frame's topic drops its cached frames."""
_YIELD_EACH = 128
_BACKOFF_S = (0.1, 2.0)
_JITTER = random.Random()


class Feed:
    """A pool's live events. Its reader runs while there is a subscriber."""

    def __init__(self, pool: str, events: EventLog, metrics: GatewayMetrics) -> None:
        self.pool = pool
        self.waiting: dict[TaskId, None] = {}
        """Waiting tasks with subscribers, in the order in which their queue positions are looked up."""
        self._events = events
        self._metrics = metrics
        self._topics: dict[TaskId, Topic] = {}
        self._cached = 0
        self._reader: asyncio.Task[None] | None = None
        self._reaper = TaskReaper()
        self._ready = asyncio.Event()

    @property
    def reading(self) -> bool:
        """Whether the reader runs."""
        return self._reader is not None

    def attach(self, task: TaskId, subscriber: Subscriber) -> Topic:
        """Send the task's events to the subscriber from now on. The first subscriber starts the reader."""
        topic = self._topics.setdefault(task, Topic())
        topic.subscribers.add(subscriber)
        if self._reader is None:
            self._ready = asyncio.Event()
            self._reader = asyncio.create_task(self._read(self._ready), name=f"follow {self.pool}")
        return topic

    def detach(self, task: TaskId, subscriber: Subscriber) -> None:
        """Send the subscriber nothing more. If the feed has no subscribers left, its reader stops."""
        topic = self._topics.get(task)
        if topic is not None:
            topic.subscribers.discard(subscriber)
            if not topic.subscribers:
                del self._topics[task]
                self._cached = max(0, self._cached - topic.cached)
                self.waiting.pop(task, None)
        if not self._topics and self._reader is not None:
            self._reaper.cancel(self._reader)
            self._reader = None
            self._cached = 0

    async def wait_live(self, timeout_s: float) -> None:
        """Wait until the reader knows its position in the log.

        If a subscriber reads the history after this wait, it misses no event between the history and the live events.

        :raises StoreUnavailableError: if the store does not respond in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._ready.wait()
        except TimeoutError as exc:
            raise StoreUnavailableError("the event log does not respond") from exc

    def cache_history(self, topic: Topic, after: frames.EventKey | None, history: list[Frame]) -> None:
        """Cache, for later subscribers, the history that a subscriber has read."""
        before = topic.cached
        topic.cache_history(after, history)
        self._account(topic, before)

    def publish(self, task: TaskId, frame: Frame) -> None:
        """Send all subscribers of the task a frame that is not in the event log."""
        topic = self._topics.get(task)
        if topic is not None:
            topic.publish(frame)

    def close(self) -> None:
        """End all subscriptions."""
        for topic in self._topics.values():
            for subscriber in topic.subscribers:
                subscriber.close()

    def count_reset(self) -> None:
        """Count a snapshot that a subscriber gets in place of events."""
        self._metrics.count_reset()

    async def stop(self) -> None:
        """Stop the reader, even if there are subscribers, and wait for its end."""
        reader, self._reader = self._reader, None
        if reader is not None:
            self._reaper.cancel(reader)
        await self._reaper.wait_all()

    async def _read(self, ready: asyncio.Event) -> None:
        cursor: str | None = None
        delay_s = _BACKOFF_S[0]
        while True:
            try:
                if cursor is None:
                    cursor = await self._events.tail(self.pool)
                    if ready.is_set():
                        self._mark_all_lagging()
                    ready.set()
                async for batch in self._events.follow(self.pool, after=cursor):
                    delay_s = _BACKOFF_S[0]
                    if batch:
                        self._metrics.observe_lag(self.pool, batch[0].at_ms)
                    for count, event in enumerate(batch, 1):
                        self._deliver(event)
                        cursor = event.id
                        if not count % _YIELD_EACH:
                            # Let subscribers empty their queues. Otherwise a burst of events overflows all queues.
                            await asyncio.sleep(0)
            except EventsTrimmedError:
                log.warning(
                    "pool %s: events were trimmed before they were read; subscribers get a snapshot or what is left",
                    self.pool,
                )
                cursor = None
            except StoreError as exc:
                log.warning(
                    "pool %s: cannot read the event log (%s); retrying in %.1f s", self.pool, exc, delay_s
                )
            except Exception:
                log.exception("pool %s: the event reader failed; retrying in %.1f s", self.pool, delay_s)
            await asyncio.sleep(delay_s * _JITTER.uniform(0.8, 1.2))
            delay_s = min(delay_s * 2, _BACKOFF_S[1])

    def _mark_all_lagging(self) -> None:
        """Mark all subscribers as lagging: they missed the trimmed events.

        The reader must already know its new position.
        """
        for topic in self._topics.values():
            topic.drop_history()
            for subscriber in topic.subscribers:
                subscriber.mark_lagging()
        self._cached = 0

    def _deliver(self, event: EventRecord) -> None:
        topic = self._topics.get(event.task)
        if topic is None:
            return
        frame = frames.event_frame(event)
        if frame.type in frames.WAITING:
            self.waiting[event.task] = None
        elif frame.type == "started" or frame.terminal:
            self.waiting.pop(event.task, None)
        self._metrics.count_relayed(len(topic.subscribers))
        before = topic.cached
        topic.append(frame)
        self._account(topic, before)

    def _account(self, topic: Topic, before: int) -> None:
        self._cached += topic.cached - before
        if self._cached > CACHE_LIMIT:
            self._cached -= topic.cached
            topic.drop_history()


class Broadcaster:
    """The feeds of all pools in this process."""

    def __init__(self, events: EventLog, metrics: GatewayMetrics) -> None:
        self._events = events
        self._metrics = metrics
        self._feeds: dict[str, Feed] = {}
        self._on_close: list[Callable[[], None]] = []
        self.closing = False

    def feed(self, pool: str) -> Feed:
        """The pool's feed."""
        if pool not in self._feeds:
            self._feeds[pool] = Feed(pool, self._events, self._metrics)
        return self._feeds[pool]

    def on_close(self, end_streams: Callable[[], None]) -> None:
        """Also call ``end_streams`` when all streams must end."""
        self._on_close.append(end_streams)

    def begin_close(self) -> None:
        """End all streams soon and accept no new ones, because the server is shutting down."""
        self.closing = True
        for end_streams in self._on_close:
            end_streams()
        for feed in self._feeds.values():
            feed.close()

    async def close(self) -> None:
        """End all streams and stop all readers."""
        self.begin_close()
        for feed in self._feeds.values():
            await feed.stop()
