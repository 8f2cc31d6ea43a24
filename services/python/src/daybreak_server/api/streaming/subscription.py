"""What one subscriber sees, in order: history, then the live feed, then the end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Iterable
from dataclasses import dataclass

from daybreak_server.api import serializers
from daybreak_server.api.store.catalog import PoolViewCache
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
    """Where a subscriber's events come from."""

    hub: Broadcaster
    store: TaskStore
    events: EventLog
    numbers: PoolViewCache
    now_ms: Callable[[], int]
    heartbeat_s: float
    timeout_s: float
    queue_limit: int = QUEUE_LIMIT


def place_frames(record: TaskRecord, numbers: PoolViewCache, now_ms: int) -> list[Frame]:
    """Where a waiting task stands, and what its pool does about it."""
    shown = serializers.task(record, numbers.latest(record.pool), now_ms)
    told = []
    if "queue" in shown:
        told.append(frames.position(record.id, shown["queue"], now_ms))
    if "wake" in shown:
        told.append(frames.wake(record.id, shown["wake"], now_ms))
    return told


class Subscription:
    """One subscriber's view of one task: a context manager around :meth:`batches`.

    A store that goes away while history or a snapshot is read ends it with ``StoreError``; the client comes
    back with the last id it has seen. The live feed itself outlives such times.
    """

    def __init__(self, sources: Sources, task: TaskId, pool: str, *, after: EventKey | None) -> None:
        self._sources = sources
        self._task = task
        self._last = after
        self._feed: Feed = sources.hub.feed(pool)
        self._channel = Topic()
        self._subscriber = Subscriber(limit=sources.queue_limit)
        self._marks: dict[str, object] = {}
        self._ended = False

    async def __aenter__(self) -> Subscription:
        """Register, and wait until the feed is live. :raises StoreUnavailableError: if it is not in time."""
        self._channel = self._feed.attach(self._task, self._subscriber)
        try:
            await self._feed.live(self._sources.timeout_s)
        except BaseException:
            self._feed.detach(self._task, self._subscriber)
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._feed.detach(self._task, self._subscriber)
        self._subscriber.leave()

    @property
    def ended(self) -> bool:
        """Whether the task's last event has been sent, so that nothing can follow."""
        return self._ended

    @property
    def behind(self) -> bool:
        """Whether the subscriber is so slow that it will get a snapshot instead of what it has missed."""
        return self._subscriber.overflowed

    async def over(self, record: TaskRecord) -> bool:
        """Whether the task has ended and the client has seen its last event, so that no stream is needed.

        An id beyond the last event is another matter: such a client gets a snapshot of what is true.
        """
        if self._last is None or not record.state.terminal:
            return False
        if record.last_event_id is not None:
            return self._last == frames.parse_id(record.last_event_id)
        return not (await self._read(self._last)).events

    async def batches(self) -> AsyncGenerator[list[Frame], None]:
        """Everything behind ``after``, up to the terminal event or until the server goes.

        An empty batch is a heartbeat: nothing has happened for a while.
        """
        async for batch in self._begin():
            yield batch
        while not self._ended and not self._subscriber.closed:
            if self._subscriber.overflowed:
                async for batch in self._reset():
                    yield batch
            elif batch := self._new(self._subscriber.pop()):
                yield batch
            elif not await self._subscriber.wait(self._sources.heartbeat_s):
                yield []

    async def _begin(self) -> AsyncGenerator[list[Frame], None]:
        if self._channel.behind(self._last) is None:
            await self._channel.loaded()  # of many who come at once one asks the store
        kept = self._channel.behind(self._last)
        if kept is None:
            async for batch in self._history():
                yield batch
        elif kept:
            yield self._new(kept)
            if kept[-1].type not in frames.WAITING:
                return  # it has ended, or it runs: then nothing is to be asked
        if not self._ended:
            async for batch in self._look():
                yield batch

    async def _look(self) -> AsyncGenerator[list[Frame], None]:
        """What the record says that history does not: its place in the queue, or that it has long ended."""
        record = await self._sources.store.get(self._task)
        if record is not None and self._beyond(record):
            async for batch in self._reset():
                yield batch
        elif record is None or record.state.terminal:
            async for batch in self._history():  # its last event may have come in between
                yield batch
            self._ended = True
        elif record.state is not State.RUNNING:
            self._feed.waiting.setdefault(self._task, None)
            if told := self._new(place_frames(record, self._sources.numbers, self._sources.now_ms())):
                yield told

    def _beyond(self, record: TaskRecord) -> bool:
        """Whether the client has seen what never was: an id of another task, or of a write that was lost."""
        if self._last is None or record.last_event_id is None:
            return False
        return self._last > frames.parse_id(record.last_event_id)

    async def _history(self) -> AsyncGenerator[list[Frame], None]:
        """The task's own stream behind the last event seen; with a snapshot first where it was trimmed."""
        start, every, trimmed = self._last, list[Frame](), False
        with self._channel.loading():
            while not (every and every[-1].terminal):
                after = (every[-1].key if every else None) or start
                page = await self._read(after)
                if page.trimmed and page.events:
                    start, every, trimmed = frames.before(frames.parse_id(page.events[0].id)), [], True
                every += [frames.logged(event) for event in page.events]
                if len(page.events) < PAGE:
                    break
            self._feed.learn(self._channel, start, every)
        record = await self._sources.store.get(self._task) if trimmed else None
        if record is not None:
            yield [self._snapshot(record)]
        for first in range(0, len(every), BATCH):
            if batch := self._new(every[first : first + BATCH]):
                yield batch

    async def _read(self, after: EventKey | None) -> EventPage:
        behind = None if after is None else frames.format_id(after)
        return await self._sources.events.read(self._task, after=behind, limit=PAGE)

    async def _reset(self) -> AsyncGenerator[list[Frame], None]:
        """A snapshot, and on from there: for one that fell behind, or knows a history that is not ours."""
        self._subscriber.resume()  # first: what comes from here on is in the snapshot or in the queue
        record = await self._sources.store.get(self._task)
        if record is None:
            self._ended = True
            return
        yield [self._snapshot(record)]
        if record.last_event_id is not None:
            self._last = frames.parse_id(record.last_event_id)
        if record.state.terminal:
            self._last = None if self._last is None else frames.before(self._last)
            async for batch in self._history():
                yield batch
            self._ended = True

    def _snapshot(self, record: TaskRecord) -> Frame:
        now_ms = self._sources.now_ms()
        return frames.reset(
            serializers.task(record, self._sources.numbers.latest(record.pool), now_ms), now_ms
        )

    def _new(self, found: Iterable[Frame]) -> list[Frame]:
        """Those that the subscriber has not had yet, up to the task's last one."""
        return [frame for frame in found if not self._ended and self._takes(frame)]

    def _takes(self, frame: Frame) -> bool:
        if frame.key is None:
            if self._marks.get(frame.type) == frame.mark:
                return False
            self._marks[frame.type] = frame.mark
            return True
        if self._last is not None and frame.key <= self._last:
            return False
        self._last = frame.key
        self._marks.clear()
        self._ended = frame.terminal
        return True
