"""What one subscriber of a task receives, in order: history, then live events, up to the task's last event.

A subscription attaches to the pool's feed, then sends the events after the client's last id, from the topic's cache
or from the store. If the task waits, the subscription also sends the queue position and the wake. Then it forwards
live events, unless ``live`` is false.

It sends a ``reset`` (a snapshot of the task) instead of events in four cases:

* The history after the client's id has been trimmed.
* The client was too slow, and its queue overflowed.
* Live events were trimmed before the pool's feed read them.
* The client's id is beyond the task's last event, because it belongs to another task or to a write that was lost.

In the second and third case, a ``lossless`` subscription reads the missed events from the store instead. After the
snapshot of an ended task the terminal event follows, so that every client sees it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass

from daybreak_server.api import serializers
from daybreak_server.api.intake.catalog import PoolViewCache
from daybreak_server.api.streaming import frames
from daybreak_server.api.streaming.broadcaster import Broadcaster, Feed
from daybreak_server.api.streaming.frames import EventKey, Frame
from daybreak_server.api.streaming.topic import BATCH, QUEUE_LIMIT, Subscriber, Topic
from daybreak_server.domain.ids import TaskId
from daybreak_server.domain.tasks import State, TaskRecord
from daybreak_server.ports.events import EventLog, EventPage
from daybreak_server.ports.tasks import TaskStore

PAGE = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where a subscription gets its events from, and its limits."""

    broadcaster: Broadcaster
    store: TaskStore
    events: EventLog
    pool_views: PoolViewCache
    now_ms: Callable[[], int]
    heartbeat_s: float
    timeout_s: float
    queue_limit: int = QUEUE_LIMIT


def position_frames(record: TaskRecord, pool_views: PoolViewCache, now_ms: int) -> list[Frame]:
    """The ``position`` and ``wake`` frames of a waiting task."""
    shown = serializers.task(record, pool_views.latest(record.pool), now_ms)
    found = []
    if "queue" in shown:
        found.append(frames.position(record.id, shown["queue"], now_ms))
    if "wake" in shown:
        found.append(frames.wake(record.id, shown["wake"], now_ms))
    return found


class Subscription:
    """A subscription to one task: a context manager around :meth:`batches`.

    If the store fails while history or a snapshot is read, the subscription ends with ``StoreError`` and the client
    reconnects with the last id that it saw. While the subscription waits for live events, an outage does not end it.
    """

    def __init__(
        self,
        sources: Sources,
        task: TaskId,
        pool: str,
        *,
        after: EventKey | None,
        live: bool = True,
        lossless: bool = False,
    ) -> None:
        """A subscription to the events after ``after``.

        :param live: Whether live events follow the stored ones.
        :param lossless: Whether a subscriber that missed live events gets them, as far as the store has them, instead
            of a snapshot.
        """
        self._sources = sources
        self._task = task
        self._last = after
        self._live = live
        self._lossless = lossless
        self._feed: Feed = sources.broadcaster.feed(pool)
        self._topic = Topic()
        self._subscriber = Subscriber(limit=sources.queue_limit)
        self._sent_keys: dict[str, object] = {}
        self._ended = False

    async def __aenter__(self) -> Subscription:
        """Attach to the feed and wait until it is live. :raises StoreUnavailableError: if that takes too long."""
        self._topic = self._feed.attach(self._task, self._subscriber)
        try:
            await self._feed.wait_live(self._sources.timeout_s)
        except BaseException:
            self._feed.detach(self._task, self._subscriber)
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._feed.detach(self._task, self._subscriber)
        self._subscriber.leave()

    @property
    def heartbeat_s(self) -> float:
        """Seconds after which a quiet stream needs a heartbeat."""
        return self._sources.heartbeat_s

    @property
    def ended(self) -> bool:
        """Whether the task's last event has been sent, so that nothing can follow."""
        return self._ended

    @property
    def lagging(self) -> bool:
        """Whether the subscriber has missed live events, and has not yet got these events or a snapshot."""
        return self._subscriber.lagging

    async def has_seen_end(self, record: TaskRecord) -> bool:
        """Whether the task has ended and the client has seen its last event, so that no stream is needed.

        If the client's id is beyond the last event, the result is false, so that the client gets a snapshot.
        """
        if self._last is None or not record.state.terminal:
            return False
        if record.last_event_id is not None:
            return self._last == frames.parse_id(record.last_event_id)
        return not (await self._read(self._last)).events

    async def batches(self) -> AsyncGenerator[list[Frame], None]:
        """The events after ``after``, up to the terminal event or until the server shuts down.

        An empty batch is a heartbeat: nothing has happened for a while.
        """
        async for batch in self._catch_up():
            yield batch
        while self._live and not self._ended and not self._subscriber.closed:
            if self._subscriber.lagging:
                self._feed.count_reset()
                async for batch in self._refill() if self._lossless else self._reset():
                    yield batch
            elif batch := self._new(self._subscriber.pop()):
                yield batch
            elif not await self._subscriber.wait(self._sources.heartbeat_s):
                yield []

    async def _catch_up(self) -> AsyncGenerator[list[Frame], None]:
        if self._topic.events_after(self._last) is None:
            # Of many subscribers that connect at once, usually only one reads the history from the store.
            await self._topic.wait_loaded()
        cached = self._topic.events_after(self._last)
        if cached is None:
            async for batch in self._history():
                yield batch
        elif cached:
            yield self._new(cached)
            if cached[-1].type not in frames.WAITING:
                return  # The task runs or has ended, so its record holds nothing else to send.
        if not self._ended:
            async for batch in self._check_record():
                yield batch

    async def _check_record(self) -> AsyncGenerator[list[Frame], None]:
        """Send what is still missing: the queue position and wake of a waiting task, the last events of an ended one,
        or a snapshot if the client is ahead."""
        record = await self._sources.store.get(self._task)
        if record is not None and self._is_ahead(record):
            async for batch in self._reset():
                yield batch
        elif record is None or record.state.terminal:
            # The last event may have been written after `_catch_up` read the history.
            async for batch in self._history():
                yield batch
            self._ended = True
        elif record.state is not State.RUNNING:
            self._feed.waiting.setdefault(self._task, None)
            now_ms = self._sources.now_ms()
            if batch := self._new(position_frames(record, self._sources.pool_views, now_ms)):
                yield batch

    def _is_ahead(self, record: TaskRecord) -> bool:
        """Whether the client's id is beyond the task's last event: it is from another task or a lost write."""
        if self._last is None or record.last_event_id is None:
            return False
        return self._last > frames.parse_id(record.last_event_id)

    async def _history(self) -> AsyncGenerator[list[Frame], None]:
        """The task's stored events after the client's last one. If some were trimmed, a snapshot comes first."""
        start, history, trimmed = self._last, list[Frame](), False
        with self._topic.loading():
            while not (history and history[-1].terminal):
                after = (history[-1].key if history else None) or start
                page = await self._read(after)
                if page.trimmed and page.events:
                    start, history, trimmed = (
                        frames.predecessor(frames.parse_id(page.events[0].id)),
                        [],
                        True,
                    )
                history += [frames.event_frame(event) for event in page.events]
                if len(page.events) < PAGE:
                    break
            self._feed.cache_history(self._topic, start, history)
        record = await self._sources.store.get(self._task) if trimmed else None
        if record is not None:
            if self._last is not None:  # otherwise the client has not seen anything yet, so it missed nothing
                self._feed.count_reset()
            yield [self._snapshot(record)]
        for first in range(0, len(history), BATCH):
            if batch := self._new(history[first : first + BATCH]):
                yield batch

    async def _read(self, after: EventKey | None) -> EventPage:
        after_id = None if after is None else frames.format_id(after)
        return await self._sources.events.read(self._task, after=after_id, limit=PAGE)

    async def _reset(self) -> AsyncGenerator[list[Frame], None]:
        """Send a snapshot and continue from there."""
        # Resume before the read, so that every later event is in the snapshot or in the queue.
        self._subscriber.resume()
        record = await self._sources.store.get(self._task)
        if record is None:
            self._ended = True
            return
        yield [self._snapshot(record)]
        if record.last_event_id is not None:
            self._last = frames.parse_id(record.last_event_id)
        if record.state.terminal:
            self._last = None if self._last is None else frames.predecessor(self._last)
            async for batch in self._history():
                yield batch
            self._ended = True

    async def _refill(self) -> AsyncGenerator[list[Frame], None]:
        """Send the events that the subscriber missed and that the store still has, and continue from there."""
        # Resume before the read, so that every later event is in the store or in the queue.
        self._subscriber.resume()
        async for batch in self._history():
            yield batch
        if not self._ended and await self._sources.store.get(self._task) is None:
            self._ended = True

    def _snapshot(self, record: TaskRecord) -> Frame:
        now_ms = self._sources.now_ms()
        return frames.reset(
            serializers.task(record, self._sources.pool_views.latest(record.pool), now_ms), now_ms
        )

    def _new(self, found: Iterable[Frame]) -> list[Frame]:
        """The frames that the subscriber has not received yet, up to the task's last event."""
        return [frame for frame in found if not self._ended and self._accept(frame)]

    def _accept(self, frame: Frame) -> bool:
        if frame.key is None:
            if self._sent_keys.get(frame.type) == frame.dedup_key:
                return False
            self._sent_keys[frame.type] = frame.dedup_key
            return True
        if self._last is not None and frame.key <= self._last:
            return False
        self._last = frame.key
        self._sent_keys.clear()
        self._ended = frame.terminal
        return True
