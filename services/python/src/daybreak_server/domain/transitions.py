"""The state table as data.

The Lua scripts implement the table. Tests on a real server compare the scripts with the table, and
``verification/exhaustive`` checks properties of the table for two leaders and two tasks. ``tools/reference.py`` writes
the table into the documentation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from daybreak_server.domain.errors import InvalidTransitionError
from daybreak_server.domain.policy import GROUP_FAILURES_MAX, RELEASES_MAX
from daybreak_server.domain.tasks import State


class Trigger(StrEnum):
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
    """The group deregistered, restarted or claimed again without settling the task that it held."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What the guards check about a task."""

    delayed: bool = False
    """At submit: its start time is in the future."""
    cancel: bool = False
    """A cancel was requested."""
    overdue: bool = False
    """Its run deadline has passed."""
    last_strike: bool = False
    """The next strike reaches the task's limit."""
    releases_exhausted: bool = False
    """The task has already been released as often as is allowed without a strike. For the event ``GROUP_FAILED``, this
    is also true if the task's groups have failed as often as is allowed without a strike."""


@dataclass(frozen=True, slots=True)
class Guard:
    """The condition of a row: a description for the documentation, and a predicate."""

    description: str
    holds: Callable[[Facts], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitionRow:
    """One row of the table: in each of ``sources``, each of ``events`` leads to ``target`` if ``guard`` holds."""

    sources: frozenset[State | None]
    events: tuple[Trigger, ...]
    target: State
    guard: Guard
    effect: str
    """What the transition does, for the documentation."""

    def matches(self, state: State | None, event: Trigger, facts: Facts) -> bool:
        """Whether this row applies."""
        return state in self.sources and event in self.events and self.guard.holds(facts)


ALWAYS = Guard("", lambda _: True)
START_AHEAD = Guard("`start_at` is in the future", lambda facts: facts.delayed)
CANCEL_REQUESTED = Guard("a cancel was requested", lambda facts: facts.cancel)
OVERDUE = Guard("the run deadline has passed", lambda facts: facts.overdue)
LAST_STRIKE = Guard("this is the last allowed strike", lambda facts: facts.last_strike)
MAY_RELEASE = Guard(
    f"the task has been returned to the queue fewer than {RELEASES_MAX} times; "
    f"if the event is *group failed*, also fewer than {GROUP_FAILURES_MAX} times because of this event",
    lambda facts: not facts.releases_exhausted,
)

_NEW = (None,)
_WAITING = tuple(state for state in State if state.waiting)
_RUNNING = (State.RUNNING,)
_STRIKES = (Trigger.ERROR, Trigger.LEASE_LOST)
_RELEASES = (Trigger.RELEASE, Trigger.STOPPED, Trigger.GROUP_FAILED)
_ENDS = (Trigger.FINISH, Trigger.ERROR, Trigger.PERMANENT, Trigger.LEASE_LOST, *_RELEASES)
_DEADLINES = (Trigger.START_DEADLINE, Trigger.RUN_DEADLINE)


def _row(
    sources: Sequence[State | None],
    events: Trigger | Sequence[Trigger],
    guard: Guard,
    target: State,
    effect: str,
) -> TransitionRow:
    all_events = (events,) if isinstance(events, Trigger) else tuple(events)
    return TransitionRow(
        sources=frozenset(sources), events=all_events, target=target, guard=guard, effect=effect
    )


TABLE: tuple[TransitionRow, ...] = (
    _row(
        _NEW,
        Trigger.SUBMIT,
        START_AHEAD,
        State.DELAYED,
        "as in the next row, but the task waits for its start",
    ),
    _row(
        _NEW,
        Trigger.SUBMIT,
        ALWAYS,
        State.QUEUED,
        "record, index entry and event are written together; "
        "the same tenant, Idempotency-Key and body return the same task",
    ),
    _row(_WAITING, Trigger.CANCEL, ALWAYS, State.CANCELLED, "leaves the queue"),
    _row(_WAITING, _DEADLINES, ALWAYS, State.EXPIRED, "leaves the queue"),
    _row(
        [State.DELAYED],
        Trigger.DUE,
        ALWAYS,
        State.QUEUED,
        "takes its original place in the queue; an idle leader is woken",
    ),
    _row(
        [State.QUEUED],
        Trigger.CLAIM,
        ALWAYS,
        State.RUNNING,
        "a new attempt with a token and a lease; the tenant is charged an estimate. "
        "Only a group that is not draining and understands the task's `spec_version` can claim",
    ),
    _row(
        _RUNNING,
        Trigger.REPORT,
        ALWAYS,
        State.RUNNING,
        "the lease is extended and events are written; the reply carries the control bits",
    ),
    _row(
        _RUNNING,
        Trigger.CANCEL,
        ALWAYS,
        State.RUNNING,
        "`cancel_at` is set once; the task stays live until the group has stopped",
    ),
    _row(_RUNNING, Trigger.RUN_DEADLINE, ALWAYS, State.RUNNING, "the control bits ask the group to stop"),
    _row(_RUNNING, _ENDS, CANCEL_REQUESTED, State.CANCELLED, "unpublished artifacts are deleted"),
    _row(
        _RUNNING,
        Trigger.FINISH,
        ALWAYS,
        State.SUCCEEDED,
        "artifacts are published; the charge is corrected to the actual use",
    ),
    _row(
        _RUNNING,
        Trigger.PERMANENT,
        ALWAYS,
        State.FAILED,
        "a strike; the task becomes a dead letter, which can be replayed",
    ),
    _row(_RUNNING, (*_STRIKES, *_RELEASES), OVERDUE, State.EXPIRED, "unpublished artifacts are deleted"),
    _row(_RUNNING, _STRIKES, LAST_STRIKE, State.FAILED, "a strike; the task becomes a dead letter"),
    _row(_RUNNING, _STRIKES, ALWAYS, State.DELAYED, "a strike; the task waits for a jittered backoff"),
    _row(
        _RUNNING,
        _RELEASES,
        MAY_RELEASE,
        State.QUEUED,
        "no strike; the task takes its original place in the queue and keeps its checkpoint",
    ),
    _row(_RUNNING, _RELEASES, LAST_STRIKE, State.FAILED, "a strike, because the task was released too often"),
    _row(
        _RUNNING,
        _RELEASES,
        ALWAYS,
        State.DELAYED,
        "a strike, because the task was released too often; it waits for a backoff",
    ),
)
"""In order of precedence: the first row that matches decides."""


def row(state: State | None, event: Trigger, facts: Facts, *, history: Sequence[str] = ()) -> TransitionRow:
    """The first row that matches. ``state`` is ``None`` before submit.

    :raises InvalidTransitionError: if no row matches.
    """
    for candidate in TABLE:
        if candidate.matches(state, event, facts):
            return candidate
    raise InvalidTransitionError(state=state or "new", event=event, history=history)


def target(state: State | None, event: Trigger, facts: Facts, *, history: Sequence[str] = ()) -> State:
    """The next state. :raises InvalidTransitionError: if no row matches."""
    return row(state, event, facts, history=history).target
