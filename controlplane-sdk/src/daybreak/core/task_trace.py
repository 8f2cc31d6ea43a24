"""Where the time of a task went, from its record and its events alone.

:func:`trace_of` folds the events into a :class:`TaskTrace`: the time from the submit to the end (or to now) is divided
into *parts*. A part is a wait or an attempt, or *unknown* if its events were deleted. Parts follow each other without a
gap. Each part may be divided into *pieces* in the same way. The pieces of a wait are the delay, the queue and the
phases of a wake. The pieces of an attempt are the phases of its work. So no two parts and no two pieces overlap, the
pieces of a part add up to the part, and the parts add up to the whole. Times are whole milliseconds, so the sums are
exact.

Events say when something *ended*: a ``progress`` event comes after its step, so the time since the previous event
belongs to the phase that the ``progress`` event names. If a lease was lost or a step stalled, the time from the last
sign of work to the end of the attempt is ``silent``.

Histories that this version does not expect still give a trace. If the time of an event is earlier than that of the
event before it, the trace uses the later time for both. If an attempt has no ``started`` event, it begins with its
first event. Events of unknown types change nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from daybreak.wire import Event, EventType, Task, TaskState, Usage
from daybreak.wire.pools import WAKE_PHASES

QUEUE = "queue"
DELAY = "delay"
"""The wait for ``start_at``."""
BACKOFF = "backoff"
"""The pause before the next attempt."""
START = "start"
"""From the claim to the first phase of the work."""
SILENT = "silent"
"""The time without a sign of work, before the lease was lost or the step counted as stalled."""
RUNNING = "running"
_SILENT_REASONS = frozenset({"lease_lost", "stalled"})


class PartKind(StrEnum):
    """What a part is."""

    WAIT = "wait"
    ATTEMPT = "attempt"
    UNKNOWN = "unknown"
    """Its events were deleted from the history."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A stretch of a part. Times are milliseconds since the submit.

    ``name`` is a phase of a wake or of the work, or one of the constants above, such as ``queue``.
    """

    name: str
    start_ms: int
    end_ms: int
    wake: bool = False
    """Whether this is a phase of a wake."""
    first_step: int | None = None
    last_step: int | None = None
    steps: int | None = None
    """The number of steps of the whole phase."""

    @property
    def seconds(self) -> float:
        """The duration in seconds."""
        return (self.end_ms - self.start_ms) / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A wait, an attempt or an unknown stretch. Times are milliseconds since the submit."""

    kind: PartKind
    start_ms: int
    end_ms: int
    pieces: tuple[Piece, ...]
    """Without gaps, from ``start_ms`` to ``end_ms``."""
    attempt: int | None = None
    group: str | None = None
    ranks: int | None = None
    resumed_from_step: int | None = None
    outcome: str | None = None
    """For an attempt: the state or the ``reason`` of the event that ended it, or ``running``."""
    message: str | None = None
    """Why the attempt ended, if it failed."""
    checkpoints: tuple[int, ...] = ()
    """The steps after which a checkpoint was stored."""
    uploads: tuple[tuple[str, int], ...] = ()
    """The artifacts that were stored: name and size in bytes."""

    @property
    def seconds(self) -> float:
        """The duration in seconds."""
        return (self.end_ms - self.start_ms) / 1000

    @property
    def gpu_seconds(self) -> float | None:
        """The duration times the number of ranks; ``None`` if the number of ranks is unknown."""
        return self.seconds * self.ranks if self.ranks is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTrace:
    """The time of a task, divided into parts."""

    task: str
    state: TaskState
    began: datetime
    total_ms: int
    """From the submit to the end, or to now."""
    parts: tuple[Part, ...]
    usage: Usage | None
    reason: str | None
    """Why the task failed, was cancelled or expired."""
    trimmed: bool
    """Whether events were deleted from the history. If the first were deleted, the first part is unknown."""
    traceparent: str | None


def trace_of(task: Task, events: Iterable[Event], *, now: datetime | None = None) -> TaskTrace:
    """The trace of a task from its record and its events. The events must be in order.

    :param now: Where the trace ends if the task has not ended; the current time by default.
    """
    folding = _Folding(task)
    for event in events:
        folding.add(event)
    return folding.trace(now or datetime.now(UTC))


@dataclass
class _Open:
    """The part that is not over yet."""

    kind: PartKind
    start_ms: int
    pieces: list[Piece] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    due: tuple[str, int] | None = None
    """For a wait: why the task cannot start yet, and until when."""
    checkpoints: list[int] = field(default_factory=list)
    uploads: list[tuple[str, int]] = field(default_factory=list)

    @property
    def mark_ms(self) -> int:
        """Where the next piece begins."""
        return self.pieces[-1].end_ms if self.pieces else self.start_ms

    def grow(self, name: str, until_ms: int, *, wake: bool = False) -> None:
        """Give the time up to ``until_ms`` to a new piece, or to the last piece if that has this name."""
        start = self.mark_ms
        if self.pieces and self.pieces[-1].name == name:
            start = self.pieces.pop().start_ms
        if until_ms > start:
            self.pieces.append(Piece(name=name, start_ms=start, end_ms=until_ms, wake=wake))


class _Folding:
    """Folds events into parts."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._began = task.created_at
        self._parts: list[Part] = []
        self._now_ms = 0
        self._trimmed = False
        self._usage = task.usage
        self._reason: str | None = (
            task.error.message if task.error and task.state is TaskState.FAILED else None
        )
        self._ended = False
        due = (DELAY, self._ms(task.start_at)) if task.start_at is not None else None
        self._open = _Open(PartKind.WAIT, 0, due=due)

    def _ms(self, at: datetime) -> int:
        return round((at - self._began).total_seconds() * 1000)

    def add(self, event: Event) -> None:
        """Apply the next event."""
        if self._ended:
            return
        if event.type is EventType.RESET:
            self._trimmed = True
            if not self._now_ms:  # no event says what happened since the submit
                self._open = _Open(PartKind.UNKNOWN, 0)
            return
        if event.id is None:
            return  # such an event describes the present, not the history
        self._now_ms = max(self._now_ms, self._ms(event.at))
        match event.type:
            case EventType.STARTED:
                self._started(event)
            case EventType.PROGRESS:
                self._progress(event.data, self._attempt(event))
            case EventType.CHECKPOINT:
                if (step := _integer(event.data.get("step"))) is not None:
                    self._attempt(event).checkpoints.append(step)
            case EventType.ARTIFACT:
                size = _integer(event.data.get("size_bytes")) or 0
                self._attempt(event).uploads.append((str(event.data.get("name", "")), size))
            case EventType.RETRYING:
                self._retrying(event)
            case _ if event.type.terminal:
                self._terminal(event)
            case _:
                pass

    def _started(self, event: Event) -> None:
        data = event.data
        wake = data.get("wake")
        if self._open.kind is PartKind.WAIT and isinstance(wake, Mapping):
            self._split_by_wake(wake)
        self._close(outcome=None, message=None)
        self._open = _Open(PartKind.ATTEMPT, self._now_ms)
        self._open.facts = {
            "attempt": event.attempt,
            "group": _text(data.get("group")),
            "ranks": _integer(data.get("ranks")),
            "resumed_from_step": _integer(data.get("resumed_from_step")),
        }

    def _split_by_wake(self, stamps: Mapping[str, Any]) -> None:
        """Divide the wait by the phases of the wake, which follow each other.

        The last phase ended ``since_ready_s`` before the attempt started.
        """
        took = [
            (phase, round(seconds * 1000))
            for phase in WAKE_PHASES
            if (seconds := _number(stamps.get(f"{phase}_s"))) is not None and seconds > 0
        ]
        ready = self._now_ms - round((_number(stamps.get("since_ready_s")) or 0.0) * 1000)
        at = ready - sum(ms for _, ms in took)
        self._wait_until(at)
        for phase, ms in took:
            at += ms
            if at > self._open.mark_ms:
                self._open.grow(phase, min(at, self._now_ms), wake=True)

    def _wait_until(self, until_ms: int) -> None:
        """Give the time up to ``until_ms`` to the delay or the backoff while it lasts, and then to the queue."""
        waiting = self._open
        if waiting.due is not None:
            name, due_ms = waiting.due
            if (until := min(due_ms, until_ms)) > waiting.mark_ms:
                waiting.grow(name, until)
        if until_ms > waiting.mark_ms:
            waiting.grow(QUEUE, until_ms)

    def _progress(self, data: Mapping[str, Any], attempt: _Open) -> None:
        name = str(data.get("phase", START))
        attempt.grow(name, self._now_ms)
        step, steps = _integer(data.get("step")), _integer(data.get("steps"))
        if step is None:
            return
        first = _integer(data.get("from_step"))
        before = attempt.facts.setdefault("steps", {}).get(name)
        attempt.facts["steps"][name] = (
            before[0] if before else first if first is not None else step,
            step,
            steps,
        )

    def _attempt(self, event: Event) -> _Open:
        """The attempt that the event belongs to. If no ``started`` event has begun it, this event begins it."""
        if self._open.kind is not PartKind.ATTEMPT:
            self._close(outcome=None, message=None)
            self._open = _Open(PartKind.ATTEMPT, self._now_ms, facts={"attempt": event.attempt})
        return self._open

    def _retrying(self, event: Event) -> None:
        reason, delay_s = _text(event.data.get("reason")), _number(event.data.get("delay_s"))
        self._attempt(event)
        self._close(outcome=reason or "error", message=_text(event.data.get("message")))
        due = (BACKOFF, self._now_ms + round(delay_s * 1000)) if delay_s else None
        self._open = _Open(PartKind.WAIT, self._now_ms, due=due)

    def _terminal(self, event: Event) -> None:
        error = event.data.get("error")
        message = _text(error.get("message")) if isinstance(error, Mapping) else None
        self._reason = message or _text(event.data.get("reason")) or self._reason
        if isinstance(usage := event.data.get("usage"), Mapping):
            self._usage = Usage.model_validate(usage)
        self._close(outcome=event.type.value, message=message)
        self._ended = True

    def _close(self, *, outcome: str | None, message: str | None) -> None:
        part, end = self._open, self._now_ms
        if part.kind is PartKind.WAIT:
            self._wait_until(end)
        elif part.kind is PartKind.UNKNOWN:
            part.grow(part.kind.value, end)
        elif outcome in _SILENT_REASONS:
            part.grow(SILENT, end)
        else:
            part.grow(part.pieces[-1].name if part.pieces else START, end)
        if end <= part.start_ms and part.kind is not PartKind.ATTEMPT:
            return  # no time passed
        steps: dict[str, tuple[int, int, int | None]] = part.facts.pop("steps", {})
        self._parts.append(
            Part(
                kind=part.kind,
                start_ms=part.start_ms,
                end_ms=end,
                pieces=tuple(_with_steps(part.pieces, steps)),
                outcome=outcome,
                message=message,
                checkpoints=tuple(part.checkpoints),
                uploads=tuple(part.uploads),
                **part.facts,
            )
        )

    def trace(self, now: datetime) -> TaskTrace:
        """The trace, once all events are applied."""
        task = self._task
        if not self._ended:
            # If the history of an ended task lacks the last event, the task's record says when the trace ends.
            self._now_ms = max(self._now_ms, self._ms(task.finished_at or now))
            state = task.state.value if task.state.terminal else RUNNING
            self._close(outcome=state if self._open.kind is PartKind.ATTEMPT else None, message=None)
        return TaskTrace(
            task=task.id,
            state=task.state,
            began=self._began,
            total_ms=self._now_ms,
            parts=tuple(self._parts),
            usage=self._usage,
            reason=self._reason,
            trimmed=self._trimmed,
            traceparent=task.traceparent,
        )


def _with_steps(pieces: Iterable[Piece], steps: Mapping[str, tuple[int, int, int | None]]) -> Iterator[Piece]:
    for piece in pieces:
        first, last, count = steps.get(piece.name, (None, None, None))
        yield Piece(
            name=piece.name,
            start_ms=piece.start_ms,
            end_ms=piece.end_ms,
            wake=piece.wake,
            first_step=first,
            last_step=last,
            steps=count,
        )


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
