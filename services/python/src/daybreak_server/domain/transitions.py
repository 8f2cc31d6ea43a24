"""The state table as data. The Lua scripts are the authority; tests compare the two on a real server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from daybreak_server.domain.errors import InvalidTransitionError
from daybreak_server.domain.tasks import State

HAND_BACKS_MAX = 50
GROUP_FAILURES_MAX = 2
"""How many of its hand-backs may come from groups that failed while they held the task. Each of them costs the pool a
restart, so that one bad task could otherwise restart it fifty times."""


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
    handed_back_enough: bool = False
    """It has been handed back as often as it may be; when its group failed, as often as that may happen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the table: in one of ``sources``, ``events`` lead to ``target`` where ``guard`` holds."""

    sources: frozenset[State | None]
    events: frozenset[Event]
    target: State
    guard: Callable[[Facts], bool]
    says: str

    def matches(self, state: State | None, event: Event, facts: Facts) -> bool:
        """Whether this row applies."""
        return state in self.sources and event in self.events and self.guard(facts)


def _always(_: Facts) -> bool:
    return True


_WAITING = (State.QUEUED, State.DELAYED)
_STRIKES = (Event.ERROR, Event.LEASE_LOST)
_RELEASES = (Event.RELEASE, Event.STOPPED, Event.GROUP_FAILED)
_ENDS = (Event.FINISH, Event.ERROR, Event.PERMANENT, Event.LEASE_LOST, *_RELEASES)


def _row(
    sources: Sequence[State | None],
    events: Sequence[Event],
    target: State,
    says: str,
    guard: Callable[[Facts], bool] = _always,
) -> Row:
    return Row(sources=frozenset(sources), events=frozenset(events), target=target, guard=guard, says=says)


TABLE: tuple[Row, ...] = (
    _row([None], [Event.SUBMIT], State.DELAYED, "start ahead", lambda f: f.delayed),
    _row([None], [Event.SUBMIT], State.QUEUED, "record, index and event in one script"),
    _row(_WAITING, [Event.CANCEL], State.CANCELLED, "leaves the queue"),
    _row(_WAITING, [Event.START_DEADLINE, Event.RUN_DEADLINE], State.EXPIRED, "leaves the queue"),
    _row([State.DELAYED], [Event.DUE], State.QUEUED, "original place"),
    _row([State.QUEUED], [Event.CLAIM], State.RUNNING, "attempt + 1, token, lease, charge"),
    _row([State.RUNNING], [Event.REPORT], State.RUNNING, "lease extended, event"),
    _row([State.RUNNING], [Event.CANCEL], State.RUNNING, "cancel is marked once; live until the group stops"),
    _row([State.RUNNING], [Event.RUN_DEADLINE], State.RUNNING, "stop bit"),
    _row([State.RUNNING], _ENDS, State.CANCELLED, "files discarded", lambda f: f.cancel),
    _row([State.RUNNING], [Event.FINISH], State.SUCCEEDED, "artifacts published, charge corrected"),
    _row([State.RUNNING], [Event.PERMANENT], State.FAILED, "strike, dead letter"),
    _row([State.RUNNING], [*_STRIKES, *_RELEASES], State.EXPIRED, "late", lambda f: f.overdue),
    _row([State.RUNNING], _STRIKES, State.FAILED, "strike, dead letter", lambda f: f.last_strike),
    _row([State.RUNNING], _STRIKES, State.DELAYED, "strike, backoff"),
    _row(
        [State.RUNNING],
        _RELEASES,
        State.QUEUED,
        "original place, checkpoint kept, no strike",
        lambda f: not f.handed_back_enough,
    ),
    _row(
        [State.RUNNING],
        _RELEASES,
        State.FAILED,
        "handed back too often counts as a strike: the last",
        lambda f: f.last_strike,
    ),
    _row([State.RUNNING], _RELEASES, State.DELAYED, "handed back too often: a strike"),
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
