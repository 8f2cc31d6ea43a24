"""Follows a task: every stored event exactly once and in order, across reconnects.

:func:`follow` remembers the id of the newest event that it has emitted. After a lost connection it sends that id as
``Last-Event-ID`` and drops every event whose id is not newer. So the server may send an event twice, but the caller
receives it once. Events that the server does not store have no id; they may come again after a reconnect. A new event
resets the backoff, and so does a connection that has lasted ``STABLE_CONNECTION_S``.

With ``live`` and without ``until``, ``follow`` ends with an error, or in one of three ways:

- The terminal event arrives (``succeeded``, ``failed``, ``cancelled``, ``expired``).
- The server answers 204, because no event follows the id in ``Last-Event-ID``.
- A connection brings no stored event, although the task had ended before that connection began. To know this,
  ``follow`` reads the task after each connection without stored events. If the task has ended, ``follow`` connects once
  more, because the terminal event may have been stored after that connection ended.

:func:`wait` follows the task without emitting its events. During the last ``POLL_BELOW_S`` seconds before its deadline
it polls instead.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from daybreak.core import routes
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
from daybreak.core.replies import raise_for_status
from daybreak.core.retry import Retry, request_with_retries
from daybreak.core.sse import SseMessage, SseParser
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

STABLE_CONNECTION_S = 15.0
"""A connection that lasted this long was healthy, so the backoff starts over."""
POLL_BELOW_S = 20.0
"""``wait`` polls when less time is left than this, because a stream may be silent between two heartbeats (15 s)."""
NO_MORE_EVENTS = 204
"""The HTTP status if ``Last-Event-ID`` is the id of the task's last event: there is no reason to reconnect."""
_KNOWN = frozenset(EventType)
_WITHOUT_ID = frozenset({EventType.WAKE, EventType.POSITION, EventType.RESET})
"""Types of events that the server does not store. They describe the current state and have no id."""
_ID = re.compile(r"(\d+)-(\d+)")

Clock = Callable[[], float]


@dataclass(frozen=True, kw_only=True)
class Stream:
    """A stream of a task: its path, its parameters, and a function that converts an event to what the caller receives.

    If ``convert`` returns ``None``, the caller receives nothing.
    """

    path: str = "events"
    params: Mapping[str, str] = field(default_factory=dict)
    convert: Callable[[Event], Any] = lambda event: event


EVENTS = Stream()
"""All events of a task."""


def parse_event_id(event_id: str) -> tuple[int, int]:
    """An event id as a pair of numbers. The pairs sort in the order of the events.

    :raises ProtocolError: if the text is not an event id.
    """
    match = _ID.fullmatch(event_id)
    if match is None:
        raise ProtocolError(f"{event_id!r} is not an event id")
    return int(match[1]), int(match[2])


def require_event_id(text: str) -> None:
    """Raise ``ArgumentError`` if the caller's text is not an event id."""
    if _ID.fullmatch(text) is None:
        raise ArgumentError(f"{text!r} is not an event id such as 1732190400000-0")


def read_event(message: SseMessage) -> Event | None:
    """Decode an event. Returns ``None`` for a type that this version does not know.

    :raises ProtocolError: if the data of an event of a known type cannot be decoded.
    """
    if message.event not in _KNOWN:
        return None
    try:
        event = Event.model_validate_json(message.data)
    except ValidationError as exc:
        raise ProtocolError(f"the stream sent an event that cannot be decoded: {message.data[:200]}") from exc
    if event.id is None and message.id is not None and event.type not in _WITHOUT_ID:
        return event.model_copy(update={"id": message.id})
    return event


class _StreamState:
    """What ``follow`` remembers between connections."""

    def __init__(self, after: str | None, retry: Retry, clock: Clock) -> None:
        self.last_id = after
        if after:
            require_event_id(after)
        self._last_position = parse_event_id(after) if after else (-1, -1)
        self._retry = retry
        self._clock = clock
        self._failures = 0
        self._was_open = False
        self._opened_at = self._received_at = clock()
        self._saw_events = False
        self._task_ended = False

    def on_open(self) -> SseParser:
        """Begin a connection. Returns its parser."""
        self._was_open, self._saw_events = True, False
        self._opened_at = self._received_at = self._clock()
        return SseParser()

    def on_bytes(self) -> None:
        """Record that the connection is alive."""
        self._received_at = self._clock()
        if self._received_at - self._opened_at >= STABLE_CONNECTION_S:
            self._failures = 0

    def accept(self, message: SseMessage) -> Event | None:
        """The message's event, or ``None`` if it has arrived before or its type is unknown."""
        event = read_event(message)
        event_id = event.id if event is not None else message.id
        if event_id is not None:
            if parse_event_id(event_id) <= self._last_position:
                return None
            self.last_id, self._last_position = event_id, parse_event_id(event_id)
        if event is not None:
            self._failures = 0
            self._saw_events = self._saw_events or event.id is not None
        return event

    def on_task(self, task: Task) -> None:
        """Remember whether the task has ended, after a connection without stored events."""
        self._task_ended = task.state.terminal

    @property
    def saw_no_events(self) -> bool:
        """Whether the last connection brought no stored event."""
        return not self._saw_events

    @property
    def at_end(self) -> bool:
        """Whether the last connection brought no stored event although the task had ended before it.

        This happens if all events of the task have been trimmed, or if ``after`` is the id of the terminal event and
        the server does not answer :data:`NO_MORE_EVENTS`.
        """
        return self._task_ended and not self._saw_events

    def on_lost(self, error: DaybreakError) -> float:
        """Seconds until the next connection. Raises ``error`` if it is permanent, or if ``retry`` does not allow
        another connection."""
        self._failures += 1
        if not self._retry.should_retry(error):
            raise error
        if not self._was_open and self._failures >= self._retry.attempts:
            raise error
        if self._was_open and self._clock() - self._received_at > self._retry.stream_s:
            raise error
        return self._retry.delay(self._failures, error)


def follow(
    task: routes.TaskRef,
    *,
    after: str | None,
    retry: Retry,
    until: float | None = None,
    emit: bool = True,
    live: bool = True,
    stream: Stream = EVENTS,
    clock: Clock = time.monotonic,
) -> Operation[bool]:
    """Emit the task's events after ``after``, up to and including its terminal event.

    Without ``live`` it emits only the events that the server has stored so far. Returns ``True`` at the end of the
    stream, or ``False`` if ``until`` (a time of ``clock``) comes first.

    :raises ArgumentError: if ``after`` is not an event id.
    :raises DaybreakError: if an error is permanent, or if ``retry`` does not allow another connection.
    """
    state = _StreamState(after, retry, clock)
    while until is None or clock() < until:
        lost: DaybreakError = TransportError("the stream ended before the task did")
        try:
            remaining_s = None if until is None else until - clock()
            head = yield Open(_request(task, stream, state.last_id, remaining_s, live=live))
            if head.status == NO_MORE_EVENTS:
                yield Close()
                return True
            _require_event_stream(head)
            parser = state.on_open()
            while (chunk := (yield Read())) is not None:
                state.on_bytes()
                for message in parser.feed(chunk):
                    event = state.accept(message)
                    if event is None:
                        continue
                    if emit and (value := stream.convert(event)) is not None:
                        yield Emit(value)
                    if event.type.terminal:
                        yield Close()
                        return True
                if until is not None and clock() >= until:
                    break
            if state.at_end or not live:
                return True
            if state.saw_no_events:
                yield Close()
                state.on_task((yield from request_with_retries(routes.get(task), retry)))
        except (TransportError, QuotaError, UnavailableError) as error:
            lost = error
        yield Close()
        if until is not None and clock() >= until:
            break
        yield Sleep(state.on_lost(lost))
    return False


def _request(
    task: routes.TaskRef, stream: Stream, last_id: str | None, remaining_s: float | None, *, live: bool
) -> HttpRequest:
    headers = {"Accept": "text/event-stream", "Cache-Control": "no-store"}
    if last_id is not None:
        headers["Last-Event-ID"] = last_id
    timeout = STREAM_TIMEOUT_S if remaining_s is None else min(STREAM_TIMEOUT_S, max(remaining_s, 1.0))
    return HttpRequest(
        method="GET",
        path=routes.task_path(task, stream.path),
        params=stream.params if live else {**stream.params, "follow": "false"},
        headers=headers,
        read_timeout_s=timeout,
    )


def _require_event_stream(head: Reply) -> None:
    raise_for_status(head)
    media_type = head.headers.get("content-type", "")
    if not media_type.startswith("text/event-stream"):
        raise ProtocolError(f"the server sent {media_type or 'no content type'} instead of an event stream")


def wait(
    task: routes.TaskRef,
    *,
    timeout_s: float | None,
    check: bool,
    retry: Retry,
    clock: Clock = time.monotonic,
) -> Operation[Task]:
    """Wait until the task ends, and return it.

    Raises ``WaitTimeoutError`` after ``timeout_s``, and ``TaskFailedError`` if ``check`` is true and the task did not
    succeed.
    """
    deadline = None if timeout_s is None else clock() + timeout_s
    if deadline is None:
        yield from follow(task, after=None, retry=retry, emit=False, clock=clock)
    elif deadline - clock() > POLL_BELOW_S:
        until = deadline - POLL_BELOW_S
        yield from follow(task, after=None, retry=retry, emit=False, until=until, clock=clock)
    pause_s = 0.05
    while True:
        current = yield from request_with_retries(routes.get(task), retry)
        if current.state.terminal:
            if check:
                raise_if_failed(current)
            return current
        remaining_s = pause_s if deadline is None else deadline - clock()
        if remaining_s <= 0:
            raise WaitTimeoutError(f"{current.id} is still {current.state.value} after {timeout_s:g} s")
        yield Sleep(min(pause_s, remaining_s))
        pause_s = min(1.0, pause_s * 1.5)


def raise_if_failed(task: Task) -> None:
    """Raise ``TaskFailedError``, or the subclass for the task's state, if the task ended without a result."""
    errors_by_state: dict[TaskState, type[TaskFailedError]] = {
        TaskState.FAILED: TaskFailedError,
        TaskState.CANCELLED: TaskCancelledError,
        TaskState.EXPIRED: TaskExpiredError,
    }
    if task.state in errors_by_state:
        raise errors_by_state[task.state](task)
