"""The pool's status, and the Events that tell people what changed in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from daybreak_server.domain.causes import Cause
from daybreak_server.domain.pools import PoolReport, WakePhase
from daybreak_server.operator.crd import names
from daybreak_server.operator.crd.resource import (
    Application,
    Condition,
    Drain,
    Phase,
    PoolObject,
    PoolStatus,
    Wake,
)
from daybreak_server.operator.planner.actions import EmitEvent
from daybreak_server.operator.planner.cluster_state import ClusterState
from daybreak_server.operator.planner.diagnosis import QUOTE_MARK
from daybreak_server.operator.planner.observed import Observed
from daybreak_server.operator.planner.placement import is_ready

_Truth = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanInputs:
    """What the plan found and decided, as far as the status tells of it."""

    wanted: int
    held: bool
    """One group stays only because tasks are live."""
    lanes: tuple[ClusterState, ...]
    outgoing: tuple[ClusterState, ...]
    problems: tuple[Cause, ...]
    wake: Wake
    drains: tuple[Drain, ...]
    closed: tuple[str, ...]
    application: Application
    idle_since: float | None
    serialize_growth: bool
    revision: str


def status(observed: Observed, found: PlanInputs) -> PoolStatus:
    """The status that belongs to these findings."""
    before, pool = observed.pool.status, observed.pool
    complete = sum(replica.complete(lane.cluster.hosts) for lane in found.lanes for replica in lane.replicas)
    groups = [group for lane in found.lanes for group in lane.groups]
    asked = observed.store is not None
    ready = sum(map(is_ready, groups)) if asked else before.ready
    after = PoolStatus(
        replicas=complete,
        selector=names.selector(pool.name),
        ready=ready,
        wanted=found.wanted,
        phase=_phase(observed, found, ready),
        wake=found.wake,
        drains=found.drains,
        closed=found.closed,
        idle_since=found.idle_since,
        serialize_growth=found.serialize_growth,
        application=found.application,
        revision=found.revision,
        observed_generation=pool.generation,
    )
    told = (_ready(found, after), _healthy(found), _up_to_date(found))
    kept = tuple(_kept(pool, new, now=observed.now) for new in told)
    return after.model_copy(update={"conditions": kept})


def refused(pool: PoolObject, problem: Cause, *, now: float) -> PoolStatus:
    """The status of a pool whose spec cannot be read: what was seen last, and why nothing follows from it."""
    before = pool.status
    wrong = _kept(pool, _condition("Healthy", "False", problem.reason, problem.message), now=now)
    others = tuple(one for one in before.conditions if one.type != wrong.type)
    return before.model_copy(
        update={
            "selector": names.selector(pool.name),
            "phase": "Blocked",
            "conditions": (*others, wrong),
            "observed_generation": pool.generation,
        }
    )


def report(status: PoolStatus) -> PoolReport:
    """What clients are told, as far as groups do not tell it themselves."""
    wake = status.wake
    wrong = next((one for one in status.conditions if one.type == "Healthy" and one.status == "False"), None)
    return PoolReport(
        phase=status.phase,
        reason="" if wrong is None else wrong.reason,
        message="" if wrong is None else wrong.message,
        wanted=status.wanted,
        wake_phase=wake.phase,
        wake_since_ms=_ms(wake.since),
        wake_began_ms=None if wake.phase == WakePhase.ZERO else _ms(wake.began),
        wake_last=wake.seconds if wake.phase == WakePhase.READY and "total" in wake.seconds else {},
    )


def _ms(at: float | None) -> int | None:
    return None if at is None else round(at * 1000)


def events(before: PoolStatus, after: PoolStatus) -> tuple[EmitEvent, ...]:
    """What changed, for people: each turn once."""
    emits: list[EmitEvent] = []
    old = {condition.type: condition for condition in before.conditions}
    for new in after.conditions:
        was = old.get(new.type)
        if was is not None and (was.status, was.reason) == (new.status, new.reason):
            continue
        if new.type == "Healthy" and new.status == "False":
            emits.append(EmitEvent(kind="Warning", reason=new.reason, message=new.message))
        elif new.type == "Healthy" and was is not None and was.status == "False":
            emits.append(EmitEvent(kind="Normal", reason="Recovered", message=f"{was.reason} is over."))
        elif new.type == "UpToDate" and (was is not None or new.status == "False"):
            emits.append(EmitEvent(kind="Normal", reason=new.reason, message=new.message))
    if after.phase != before.phase and after.phase in _EVENT_MESSAGES:
        told = _EVENT_MESSAGES[after.phase].format(wanted=_groups(after.wanted), ready=_groups(after.ready))
        emits.append(EmitEvent(kind="Normal", reason=after.phase, message=told))
    return tuple(emits)


def _groups(number: int) -> str:
    return "1 group is" if number == 1 else f"{number} groups are"


_EVENT_MESSAGES: dict[str, str] = {
    "Waking": "{wanted} wanted, {ready} ready.",
    "Ready": "{ready} ready.",
    "Draining": "{wanted} wanted: the others finish or hand back their tasks, then go.",
    "Zero": "No group is wanted: the workers are gone, the Ray head stays.",
    "Suspended": "Nothing was wanted for a while: the Ray head is gone as well. A task brings all of it back.",
    "Paused": "spec.paused is set: the operator changes nothing until it is taken away.",
}


def _phase(observed: Observed, found: PlanInputs, ready: int) -> Phase:
    if observed.pool.spec.paused:
        return "Paused"
    if found.problems and (ready < found.wanted or not observed.view.kuberay):
        return "Blocked"
    if not found.wanted:
        return _phase_at_zero(found)
    if found.outgoing:
        return "Replacing"
    if ready < found.wanted:
        return "Waking"
    return "Draining" if ready > found.wanted else "Ready"


def _phase_at_zero(found: PlanInputs) -> Phase:
    if any(lane.workers for lane in found.lanes):
        return "Draining"
    asleep = found.lanes and all(lane.cluster.suspended for lane in found.lanes)
    return "Suspended" if asleep else "Zero"


def _ready(found: PlanInputs, after: PoolStatus) -> Condition:
    wanted, ready = found.wanted, after.ready
    if found.held:
        note = "No group is asked for, but tasks are live: the last group stays until they have ended."
        return _condition("Ready", "True" if ready else "False", "HeldByTasks", note)
    if not wanted:
        return _condition("Ready", "True", "AtZero", "No group is wanted; a task wakes the pool.")
    if ready >= wanted:
        return _condition("Ready", "True", "GroupsReady", f"{_groups(wanted)} wanted and ready.")
    at = "" if found.wake.phase == WakePhase.READY else f"; the furthest is at: {found.wake.phase}"
    note = f"{ready} of {wanted} groups are ready{at}."
    if found.problems:
        return _condition("Ready", "False", found.problems[0].reason, f"{note} {found.problems[0].message}")
    return _condition("Ready", "False", "Waking", note)


def _healthy(found: PlanInputs) -> Condition:
    if not found.problems:
        return _condition("Healthy", "True", "NoProblem", "")
    first, others = found.problems[0], found.problems[1:]
    more = f" Also: {', '.join(problem.reason for problem in others)}." if others else ""
    return _condition("Healthy", "False", first.reason, first.message + more)


def _up_to_date(found: PlanInputs) -> Condition:
    if found.outgoing:
        left = sum(len(lane.replicas) for lane in found.outgoing)
        note = (
            f"GroupStore are replaced one by one after a change of the template; {left} of the old are left."
        )
        return _condition("UpToDate", "False", "Replacing", note)
    return _condition("UpToDate", "True", "OneRevision", "All groups are made from the template as it is.")


def _condition(kind: str, truth: _Truth, reason: str, message: str) -> Condition:
    return Condition(type=kind, status=truth, reason=reason, message=message, last_transition_time=0.0)


def _kept(pool: PoolObject, new: Condition, *, now: float) -> Condition:
    """With the moment of its last turn. Others' words that differ while the cause stays make no other write."""
    was = next((c for c in pool.status.conditions if c.type == new.type), None)
    changes: dict[str, object] = {"observed_generation": pool.generation}
    if was is None or was.status != new.status:
        changes["last_transition_time"] = round(now, 3)
    else:
        changes["last_transition_time"] = was.last_transition_time
        if was.reason == new.reason and _ours(was.message) == _ours(new.message):
            changes["message"] = was.message
    return new.model_copy(update=changes)


def _ours(message: str) -> str:
    return message.partition(QUOTE_MARK)[0]
