"""Following a task: its events exactly once and in order, over as many connections as it takes."""

from __future__ import annotations

import re
import time
from collections.abc import Callable

from pydantic import ValidationError

from daybreak.core import operations
from daybreak.core.effects import (
    STREAM_TIMEOUT_S,
    Close,
    Emit,
    HttpRequest,
    Open,
    Operation,
    Read,
    Reply,
    Sleep,
)
from daybreak.core.replies import refuse
from daybreak.core.retry import Retry, calling
from daybreak.core.sse import Message, SseParser
from daybreak.errors import (
    ArgumentError,
    DaybreakError,
    ProtocolError,
    QuotaError,
    TaskCancelledError,
    TaskExpiredError,
    TaskFailedError,
    TransportError,
    UnavailableError,
    WaitTimeoutError,
)
from daybreak.wire import Event, EventType, Task, TaskState

HEALTHY_S = 15.0
"""A connection that lasted so long was a good one: the backoff starts anew after it."""
POLL_BELOW_S = 20.0
"""Near its deadline ``wait`` asks instead of listening: a stream may be silent for a heartbeat (15 s)."""
NOTHING_FOLLOWS = 204
"""The status that answers the id of a task's last event: there is nothing to connect for any more."""
_KNOWN = frozenset(EventType)
_ID = re.compile(r"(\d+)-(\d+)")

Clock = Callable[[], float]


def place(event_id: str) -> tuple[int, int]:
    """An event id as a pair that sorts in the order of events."""
    match = _ID.fullmatch(event_id)
    if match is None:
        raise ProtocolError(f"{event_id!r} is not an event id")
    return int(match[1]), int(match[2])


def require_event_id(text: str) -> None:
    """Raise ``ArgumentError`` for what a caller gave as an event id and is none."""
    if _ID.fullmatch(text) is None:
        raise ArgumentError(f"{text!r} is not an event id such as 1732190400000-0")


def read_event(message: Message) -> Event | None:
    """The event of a message; ``None`` for a type that this version does not know."""
    if message.event not in _KNOWN:
        return None
    try:
        event = Event.model_validate_json(message.data)
    except ValidationError as exc:
        raise ProtocolError(f"the stream sent an event that cannot be read: {message.data[:200]}") from exc
    if event.id is None and message.id is not None and event.type not in _UNLOGGED:
        return event.model_copy(update={"id": message.id})
    return event


_UNLOGGED = frozenset({EventType.WAKE, EventType.POSITION, EventType.RESET})


class _Stream:
    """What is known of the stream between its connections."""

    def __init__(self, after: str | None, retry: Retry, clock: Clock) -> None:
        self.last = after
        if after:
            require_event_id(after)
        self._at = place(after) if after else (-1, -1)
        self._retry = retry
        self._clock = clock
        self._failures = 0
        self._was_open = False
        self._opened_at = self._heard_at = clock()
        self._news = False
        self._seen_ended = False

    def opened(self) -> SseParser:
        self._was_open, self._news = True, False
        self._opened_at = self._heard_at = self._clock()
        return SseParser()

    def heard(self) -> None:
        self._heard_at = self._clock()
        if self._heard_at - self._opened_at >= HEALTHY_S:
            self._failures = 0

    def take(self, message: Message) -> Event | None:
        """The event if it is new; what was seen before is dropped."""
        event = read_event(message)
        event_id = event.id if event is not None else message.id
        if event_id is not None:
            if place(event_id) <= self._at:
                return None
            self.last, self._at = event_id, place(event_id)
        if event is not None:
            self._failures = 0
            self._news = self._news or event.id is not None
        return event

    @property
    def exhausted(self) -> bool:
        """Whether the task was known to have ended when this connection began, and it brought nothing more.

        So it is when one asks for what came after the terminal event, or when all history is trimmed.
        """
        return self._seen_ended and not self._news

    def looked(self, task: Task) -> None:
        """A look at the task after a connection that brought nothing."""
        self._seen_ended = task.state.terminal

    @property
    def doubtful(self) -> bool:
        """Whether the connection that closed brought nothing."""
        return not self._news

    def lost(self, error: DaybreakError) -> float:
        """Seconds until the next connection. Raises the error when patience is at its end."""
        self._failures += 1
        if not self._retry.patient(error):
            raise error
        if not self._was_open and self._failures >= self._retry.attempts:
            raise error
        if self._was_open and self._clock() - self._heard_at > self._retry.stream_s:
            raise error
        return self._retry.delay(self._failures, error)


def following(
    task: operations.TaskRef,
    *,
    after: str | None,
    retry: Retry,
    until: float | None = None,
    emit: bool = True,
    clock: Clock = time.monotonic,
) -> Operation[bool]:
    """Emit the task's events after ``after`` until its terminal one, reconnecting with ``Last-Event-ID``.

    Gives ``True`` after the terminal event, ``False`` when ``until`` (of ``clock``) passed before it.
    """
    stream = _Stream(after, retry, clock)
    while until is None or clock() < until:
        lost: DaybreakError = TransportError("the stream ended before the task did")
        try:
            head = yield Open(_request(task, stream.last, None if until is None else until - clock()))
            if head.status == NOTHING_FOLLOWS:
                yield Close()
                return True
            _check(head)
            parser = stream.opened()
            while (chunk := (yield Read())) is not None:
                stream.heard()
                for message in parser.feed(chunk):
                    event = stream.take(message)
                    if event is None:
                        continue
                    if emit:
                        yield Emit(event)
                    if event.type.terminal:
                        yield Close()
                        return True
                if until is not None and clock() >= until:
                    break
            if stream.exhausted:
                return True
            if stream.doubtful:
                yield Close()
                stream.looked((yield from calling(operations.get(task), retry)))
        except (TransportError, QuotaError, UnavailableError) as error:
            lost = error
        yield Close()
        if until is not None and clock() >= until:
            break
        yield Sleep(stream.lost(lost))
    return False


def _request(task: operations.TaskRef, last: str | None, left_s: float | None) -> HttpRequest:
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    if last is not None:
        headers["Last-Event-ID"] = last
    timeout = STREAM_TIMEOUT_S if left_s is None else min(STREAM_TIMEOUT_S, max(left_s, 1.0))
    return HttpRequest(
        method="GET", path=operations.task_path(task, "events"), headers=headers, read_timeout_s=timeout
    )


def _check(head: Reply) -> None:
    refuse(head)
    kind = head.headers.get("content-type", "")
    if not kind.startswith("text/event-stream"):
        raise ProtocolError(f"the server answered {kind or 'no content type'} instead of an event stream")


def waiting(
    task: operations.TaskRef,
    *,
    timeout_s: float | None,
    check: bool,
    retry: Retry,
    clock: Clock = time.monotonic,
) -> Operation[Task]:
    """Wait for the task's end. Raises ``TaskFailedError`` (when ``check``) and ``WaitTimeoutError``."""
    deadline = None if timeout_s is None else clock() + timeout_s
    if deadline is None:
        yield from following(task, after=None, retry=retry, emit=False, clock=clock)
    elif deadline - clock() > POLL_BELOW_S:
        until = deadline - POLL_BELOW_S
        yield from following(task, after=None, retry=retry, emit=False, until=until, clock=clock)
    pause = 0.05
    while True:
        seen = yield from calling(operations.get(task), retry)
        if seen.state.terminal:
            if check:
                raise_if_failed(seen)
            return seen
        left = pause if deadline is None else deadline - clock()
        if left <= 0:
            raise WaitTimeoutError(f"{seen.id} is still {seen.state.value} after {timeout_s:g} s")
        yield Sleep(min(pause, left))
        pause = min(1.0, pause * 1.5)


def raise_if_failed(task: Task) -> None:
    """Raise the error for a task that ended without a result."""
    kinds: dict[TaskState, type[TaskFailedError]] = {
        TaskState.FAILED: TaskFailedError,
        TaskState.CANCELLED: TaskCancelledError,
        TaskState.EXPIRED: TaskExpiredError,
    }
    if task.state in kinds:
        raise kinds[task.state](task)
