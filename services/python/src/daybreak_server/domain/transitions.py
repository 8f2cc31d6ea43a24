"""The state table as data. The Lua scripts are the authority; tests compare the two on a real server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from daybreak_server.domain.errors import InvalidTransitionError
from daybreak_server.domain.policy import GROUP_FAILURES_MAX, RELEASES_MAX
from daybreak_server.domain.tasks import State


class Event(StrEnum):
    """What can happen to a task."""

    SUBMIT = "submit"
    CANCEL = "cancel"
    START_DEADLINE = "start deadline"
    RUN_DEADLINE = "run deadline"
    DUE = "due"
    CLAIM = "claim"
    REPORT = "renew, report, checkpoint"
    FINISH = "finish"
    STOPPED = "stopped"
    ERROR = "retryable error"
    PERMANENT = "permanent error"
    LEASE_LOST = "lease lost"
    RELEASE = "release"
    GROUP_FAILED = "group failed"
    """The group left, registered again or claimed again, and had not settled the task that it held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the guards look at."""

    delayed: bool = False
    """At submit: its start lies ahead."""
    cancel: bool = False
    """Cancel was requested."""
    overdue: bool = False
    """Its run deadline has passed."""
    last_strike: bool = False
    """One more strike reaches the most it may have."""
    released_enough: bool = False
    """It has been handed back as often as it may be; when its group failed, as often as that may happen."""


@dataclass(frozen=True, slots=True)
class Guard:
    """A condition of a row: in words for people, and as a question to the facts."""

    says: str
    holds: Callable[[Facts], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the table: in one of ``sources``, ``events`` lead to ``target`` where ``guard`` holds.

    ``docs/architecture.md`` shows the table as it is here: ``tools/reference.py`` writes it.
    """

    sources: frozenset[State | None]
    events: tuple[Event, ...]
    target: State
    guard: Guard
    says: str
    """What the step does, for people."""

    def matches(self, state: State | None, event: Event, facts: Facts) -> bool:
        """Whether this row applies."""
        return state in self.sources and event in self.events and self.guard.holds(facts)


ALWAYS = Guard("", lambda _: True)
AHEAD = Guard("its start lies ahead", lambda facts: facts.delayed)
CANCEL_REQUESTED = Guard("cancel was requested", lambda facts: facts.cancel)
OVERDUE = Guard("its run deadline has passed", lambda facts: facts.overdue)
LAST_STRIKE = Guard("strikes + 1 = max", lambda facts: facts.last_strike)
MAY_HAND_BACK = Guard(
    f"handed back < {RELEASES_MAX} times so far, and < {GROUP_FAILURES_MAX} times by a group that failed",
    lambda facts: not facts.released_enough,
)

_NEW = (None,)
_WAITING = tuple(state for state in State if state.waiting)
_RUNNING = (State.RUNNING,)
_STRIKES = (Event.ERROR, Event.LEASE_LOST)
_BACK = (Event.RELEASE, Event.STOPPED, Event.GROUP_FAILED)
_ENDS = (Event.FINISH, Event.ERROR, Event.PERMANENT, Event.LEASE_LOST, *_BACK)
_DEADLINES = (Event.START_DEADLINE, Event.RUN_DEADLINE)


def _row(
    sources: Sequence[State | None],
    events: Event | Sequence[Event],
    guard: Guard,
    target: State,
    says: str,
) -> Row:
    several = (events,) if isinstance(events, Event) else tuple(events)
    return Row(sources=frozenset(sources), events=several, target=target, guard=guard, says=says)


TABLE: tuple[Row, ...] = (
    _row(_NEW, Event.SUBMIT, AHEAD, State.DELAYED, "as below; waits for its start"),
    _row(
        _NEW,
        Event.SUBMIT,
        ALWAYS,
        State.QUEUED,
        "record, index and event in one script; same tenant, Idempotency-Key and body → the same task",
    ),
    _row(_WAITING, Event.CANCEL, ALWAYS, State.CANCELLED, "leaves the queue"),
    _row(_WAITING, _DEADLINES, ALWAYS, State.EXPIRED, "leaves the queue"),
    _row([State.DELAYED], Event.DUE, ALWAYS, State.QUEUED, "original place in the queue; the bell rings"),
    _row(
        [State.QUEUED],
        Event.CLAIM,
        ALWAYS,
        State.RUNNING,
        "attempt + 1, token, lease, tenant charged an estimate; "
        "only for a group that is not draining and knows the spec's version",
    ),
    _row(
        _RUNNING,
        Event.REPORT,
        ALWAYS,
        State.RUNNING,
        "lease extended, event; the reply carries the control bits",
    ),
    _row(
        _RUNNING,
        Event.CANCEL,
        ALWAYS,
        State.RUNNING,
        "`cancel_at` set once; still live until the group has stopped",
    ),
    _row(_RUNNING, Event.RUN_DEADLINE, ALWAYS, State.RUNNING, "stop bit"),
    _row(_RUNNING, _ENDS, CANCEL_REQUESTED, State.CANCELLED, "unpublished artifacts discarded"),
    _row(
        _RUNNING,
        Event.FINISH,
        ALWAYS,
        State.SUCCEEDED,
        "artifacts published, charge corrected to what was used",
    ),
    _row(
        _RUNNING,
        Event.PERMANENT,
        ALWAYS,
        State.FAILED,
        "strike, dead letter; replay makes a new task with `replay_of`",
    ),
    _row(_RUNNING, (*_STRIKES, *_BACK), OVERDUE, State.EXPIRED, "unpublished artifacts discarded"),
    _row(_RUNNING, _STRIKES, LAST_STRIKE, State.FAILED, "strike, dead letter"),
    _row(_RUNNING, _STRIKES, ALWAYS, State.DELAYED, "strike, jittered backoff"),
    _row(_RUNNING, _BACK, MAY_HAND_BACK, State.QUEUED, "original place, checkpoint kept, no strike"),
    _row(_RUNNING, _BACK, LAST_STRIKE, State.FAILED, "handed back too often: a strike, and the last one"),
    _row(_RUNNING, _BACK, ALWAYS, State.DELAYED, "handed back too often: a strike"),
)
"""In order of precedence: the first row that matches decides."""


def row(state: State | None, event: Event, facts: Facts, *, history: Sequence[str] = ()) -> Row:
    """The row that decides. ``state`` is ``None`` before submit. :raises InvalidTransitionError: if none."""
    for candidate in TABLE:
        if candidate.matches(state, event, facts):
            return candidate
    raise InvalidTransitionError(state=state or "new", event=event, history=history)


def target(state: State | None, event: Event, facts: Facts, *, history: Sequence[str] = ()) -> State:
    """The state that follows. :raises InvalidTransitionError: if the table has no row for this."""
    return row(state, event, facts, history=history).target
