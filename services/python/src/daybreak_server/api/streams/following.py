"""What one subscriber sees, in order: history, then the live feed, then the end."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from daybreak_server.api import views
from daybreak_server.api.catalog import PoolNumbers
from daybreak_server.api.streams import frames
from daybreak_server.api.streams.frames import EventKey, Frame
from daybreak_server.api.streams.hub import Feed, Hub, Subscriber
from daybreak_server.domain.ids import TaskId
from daybreak_server.domain.tasks import State, TaskRecord
from daybreak_server.ports.store import EventLog, TaskStore

PAGE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Sources:
    """Where a subscriber's events come from."""

    hub: Hub
    store: TaskStore
    events: EventLog
    numbers: PoolNumbers
    now_ms: Callable[[], int]
    heartbeat_s: float
    timeout_s: float


def place_frames(record: TaskRecord, numbers: PoolNumbers, now_ms: int) -> list[Frame]:
    """Where a waiting task stands, and what its pool does about it."""
    shown = views.task(record, numbers.latest(record.pool), now_ms)
    told = []
    if shown.queue is not None:
        told.append(frames.position(record.id, shown.queue.to_json(), now_ms))
    if shown.wake is not None:
        told.append(frames.wake(record.id, shown.wake, now_ms))
    return told


class Following:
    """One subscriber's view of one task: a context manager around :meth:`frames`.

    A store that goes away while history or a snapshot is read ends the frames with ``StoreError``; the client
    comes back with the last id it has seen. The live feed itself outlives such times.
    """

    def __init__(self, sources: Sources, task: TaskId, pool: str, *, after: EventKey | None) -> None:
        self._sources = sources
        self._task = task
        self._last = after
        self._feed: Feed = sources.hub.feed(pool)
        self._subscriber = Subscriber(task)
        self._marks: dict[str, object] = {}
        self._ended = False

    async def __aenter__(self) -> Following:
        """Register, and wait until the feed is live. :raises StoreUnavailableError: if it is not in time."""
        self._feed.attach(self._subscriber)
        try:
            await self._feed.live(self._sources.timeout_s)
        except BaseException:
            self._feed.detach(self._subscriber)
            raise
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._feed.detach(self._subscriber)

    @property
    def ended(self) -> bool:
        """Whether the task's last event has been sent, so that nothing can follow."""
        return self._ended

    async def frames(self) -> AsyncGenerator[Frame | None, None]:
        """Everything behind ``after``, up to the terminal event or until the server goes.

        ``None`` is a heartbeat: nothing has happened for a while.
        """
        async for frame in self._begin():
            yield frame
        while not self._ended and not self._subscriber.closed:
            if self._subscriber.overflowed:
                async for frame in self._reset():
                    yield frame
            elif (waiting := self._subscriber.pop()) is not None:
                if self._takes(waiting):
                    yield waiting
            elif not await self._subscriber.wait(self._sources.heartbeat_s):
                yield None

    async def _begin(self) -> AsyncGenerator[Frame, None]:
        async for frame in self._history():
            yield frame
        if self._ended:
            return
        record = await self._sources.store.get(self._task)
        if record is not None and self._beyond(record):
            async for frame in self._reset():
                yield frame
        elif record is None or record.state.terminal:
            async for frame in self._history():  # its last event may have come in between
                yield frame
            self._ended = True
        elif record.state is not State.RUNNING:
            self._feed.waiting.setdefault(self._task, None)
            for frame in place_frames(record, self._sources.numbers, self._sources.now_ms()):
                if self._takes(frame):
                    yield frame

    def _beyond(self, record: TaskRecord) -> bool:
        """Whether the client has seen what never was: an id of another task, or of a write that was lost."""
        if self._last is None or record.last_event_id is None:
            return False
        return self._last > frames.parse_id(record.last_event_id)

    async def _history(self) -> AsyncGenerator[Frame, None]:
        """The task's own stream behind the last event seen, page by page."""
        while not self._ended:
            after = None if self._last is None else frames.format_id(self._last)
            page = await self._sources.events.read(self._task, after=after, limit=PAGE)
            if page.trimmed:
                record = await self._sources.store.get(self._task)
                if record is not None:
                    yield self._snapshot(record)
            for event in page.events:
                frame = frames.logged(event)
                if self._takes(frame):
                    yield frame
            if len(page.events) < PAGE:
                return

    async def _reset(self) -> AsyncGenerator[Frame, None]:
        """A snapshot, and on from there: for one that fell behind, or knows a history that is not ours."""
        self._subscriber.caught_up()  # first: what comes from here on is in the snapshot or in the queue
        record = await self._sources.store.get(self._task)
        if record is None:
            self._ended = True
            return
        yield self._snapshot(record)
        if record.last_event_id is not None:
            self._last = frames.parse_id(record.last_event_id)
        if record.state.terminal:
            self._last = None if self._last is None else frames.before(self._last)
            async for frame in self._history():
                yield frame
            self._ended = True

    def _snapshot(self, record: TaskRecord) -> Frame:
        now_ms = self._sources.now_ms()
        return frames.reset(views.task(record, self._sources.numbers.latest(record.pool), now_ms), now_ms)

    def _takes(self, frame: Frame) -> bool:
        """Whether the subscriber has not had it yet."""
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
