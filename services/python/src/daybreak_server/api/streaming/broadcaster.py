"""One blocking reader for each pool that somebody follows; it hands every event to those who follow its task.

A subscriber registers first and reads its task's history afterwards, so what happens in between is in both
and is told apart by its id: no gap, no repeat. Its queue is bounded: one that falls behind is told so.
"""

from __future__ import annotations

import asyncio
import logging
import random

from daybreak_server.api.cancellation import TaskReaper
from daybreak_server.api.streaming import frames
from daybreak_server.api.streaming.frames import Frame
from daybreak_server.api.streaming.topic import Subscriber, Topic
from daybreak_server.domain.ids import TaskId
from daybreak_server.domain.tasks import EventRecord
from daybreak_server.observability.gateway_metrics import GatewayMetrics
from daybreak_server.ports.events import EventLog
from daybreak_server.ports.store_errors import EventsTrimmedError, StoreError, StoreUnavailableError

log = logging.getLogger("daybreak.api.streams")

KEPT_LIMIT = 200_000
"""Frames kept for clients that come back, in all channels of a feed (some 80 MB); more are not kept."""
_YIELD_EACH = 128
_BACKOFF_S = (0.1, 2.0)
_JITTER = random.Random()


class Feed:
    """A pool's live events. Its reader runs while there is a subscriber."""

    def __init__(self, pool: str, events: EventLog, metrics: GatewayMetrics) -> None:
        self.pool = pool
        self.waiting: dict[TaskId, None] = {}
        """Tasks that wait and are followed, in the order in which their places are looked up."""
        self._events = events
        self._metrics = metrics
        self._channels: dict[TaskId, Topic] = {}
        self._kept = 0
        self._reader: asyncio.Task[None] | None = None
        self._endings = TaskReaper()
        self._ready = asyncio.Event()

    @property
    def reading(self) -> bool:
        """Whether the reader runs."""
        return self._reader is not None

    def attach(self, task: TaskId, subscriber: Subscriber) -> Topic:
        """From now on it gets its task's events; the first one starts the reader."""
        channel = self._channels.setdefault(task, Topic())
        channel.subscribers.add(subscriber)
        if self._reader is None:
            self._ready = asyncio.Event()
            self._reader = asyncio.create_task(self._read(self._ready), name=f"follow {self.pool}")
        return channel

    def detach(self, task: TaskId, subscriber: Subscriber) -> None:
        """It gets nothing more; the last one stops the reader."""
        channel = self._channels.get(task)
        if channel is not None:
            channel.subscribers.discard(subscriber)
            if not channel.subscribers:
                del self._channels[task]
                self._kept = max(0, self._kept - channel.kept)
                self.waiting.pop(task, None)
        if not self._channels and self._reader is not None:
            self._endings.end(self._reader)
            self._reader = None
            self._kept = 0

    async def live(self, timeout_s: float) -> None:
        """Wait until the reader knows where it begins: history read from then on leaves no gap.

        :raises StoreUnavailableError: when the store does not say so in time.
        """
        try:
            async with asyncio.timeout(timeout_s):
                await self._ready.wait()
        except TimeoutError as exc:
            raise StoreUnavailableError("the event log does not answer") from exc

    def learn(self, channel: Topic, after: frames.EventKey | None, history: list[Frame]) -> None:
        """Keep history that a subscriber has read, for those who come after it."""
        before = channel.kept
        channel.learn(after, history)
        self._account(channel, before)

    def tell(self, task: TaskId, frame: Frame) -> None:
        """Hand a frame that is not in the log to all who follow the task."""
        channel = self._channels.get(task)
        if channel is not None:
            channel.tell(frame)

    def close(self) -> None:
        """End all subscribers."""
        for channel in self._channels.values():
            for subscriber in channel.subscribers:
                subscriber.close()

    async def stopped(self) -> None:
        """Stop the reader, whoever is still there, and wait for it."""
        reader, self._reader = self._reader, None
        if reader is not None:
            self._endings.end(reader)
        await self._endings.all()

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
                        self._deliver(event)
                        cursor = event.id
                        if not count % _YIELD_EACH:
                            await asyncio.sleep(0)  # let subscribers drain, or a burst overflows them all
            except EventsTrimmedError:
                log.warning("pool %s: events were trimmed before they were read; all begin again", self.pool)
                cursor = None
            except StoreError as exc:
                log.warning("pool %s: the event log is away (%s); again in %.1f s", self.pool, exc, delay_s)
            except Exception:
                log.exception("pool %s: the reader failed; again in %.1f s", self.pool, delay_s)
            await asyncio.sleep(delay_s * _JITTER.uniform(0.8, 1.2))
            delay_s = min(delay_s * 2, _BACKOFF_S[1])

    def _fall_behind(self) -> None:
        """Nobody got what was trimmed: all are told so, once the reader knows where it goes on."""
        for channel in self._channels.values():
            channel.forget()
            for subscriber in channel.subscribers:
                subscriber.mark_lagging()
        self._kept = 0

    def _deliver(self, event: EventRecord) -> None:
        channel = self._channels.get(event.task)
        if channel is None:
            return
        frame = frames.logged(event)
        if frame.type in frames.WAITING:
            self.waiting[event.task] = None
        elif frame.type == "started" or frame.terminal:
            self.waiting.pop(event.task, None)
        self._metrics.events_relayed.inc(len(channel.subscribers))
        before = channel.kept
        channel.log(frame)
        self._account(channel, before)

    def _account(self, channel: Topic, before: int) -> None:
        self._kept += channel.kept - before
        if self._kept > KEPT_LIMIT:
            self._kept -= channel.kept
            channel.forget()


class Broadcaster:
    """All feeds of this process."""

    def __init__(self, events: EventLog, metrics: GatewayMetrics) -> None:
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
