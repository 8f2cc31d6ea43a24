"""Builds the pool's status, and the Events for what changed in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from daybreak_server.domain.causes import Cause
from daybreak_server.domain.pools import NOT_WAKING, PoolReport, WakePhase
from daybreak_server.operator.crd import names
from daybreak_server.operator.crd.resource import (
    Application,
    Condition,
    Drain,
    Phase,
    PoolObject,
    PoolStatus,
    WakeStatus,
)
from daybreak_server.operator.planner.actions import EmitEvent
from daybreak_server.operator.planner.cluster_state import ClusterState
from daybreak_server.operator.planner.diagnosis import QUOTE_MARK
from daybreak_server.operator.planner.observed import Observed
from daybreak_server.operator.planner.removal_units import is_ready

_Truth = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanInputs:
    """What the plan observed and decided, as far as the status shows it."""

    wanted: int
    kept_for_work: bool
    """Whether the last group stays only because there is work."""
    states: tuple[ClusterState, ...]
    outgoing: tuple[ClusterState, ...]
    problems: tuple[Cause, ...]
    wake: WakeStatus
    drains: tuple[Drain, ...]
    cordoned: tuple[str, ...]
    application: Application
    zero_since: float | None
    serialize_growth: bool
    revision: str


def status(observed: Observed, inputs: PlanInputs) -> PoolStatus:
    """Build the status from these inputs."""
    before, pool = observed.pool.status, observed.pool
    complete = sum(
        replica.complete(state.cluster.hosts) for state in inputs.states for replica in state.replicas
    )
    groups = [group for state in inputs.states for group in state.groups]
    ready = before.ready if observed.store is None else sum(map(is_ready, groups))
    after = PoolStatus(
        replicas=complete,
        selector=names.selector(pool.name),
        ready=ready,
        wanted=inputs.wanted,
        phase=_phase(observed, inputs, ready),
        wake=inputs.wake,
        drains=inputs.drains,
        cordoned=inputs.cordoned,
        zero_since=inputs.zero_since,
        serialize_growth=inputs.serialize_growth,
        application=inputs.application,
        revision=inputs.revision,
        observed_generation=pool.generation,
    )
    conditions = (_ready(inputs, after), _healthy(inputs), _up_to_date(inputs))
    dated = tuple(_with_transition(pool, condition, now=observed.now) for condition in conditions)
    return after.model_copy(update={"conditions": dated})


def refused(pool: PoolObject, problem: Cause, *, now: float) -> PoolStatus:
    """The status of a pool whose spec cannot be read: the last known values, and what is wrong with the spec."""
    before = pool.status
    unhealthy = _with_transition(
        pool, _condition("Healthy", "False", problem.reason, problem.message), now=now
    )
    others = tuple(condition for condition in before.conditions if condition.type != unhealthy.type)
    return before.model_copy(
        update={
            "selector": names.selector(pool.name),
            "phase": "Blocked",
            "conditions": (*others, unhealthy),
            "observed_generation": pool.generation,
        }
    )


def report(status: PoolStatus, *, target_load: float | None = None) -> PoolReport:
    """The report for clients, with facts that the groups do not report. ``target_load`` comes from the pool's spec."""
    wake = status.wake
    unhealthy = next((c for c in status.conditions if c.type == "Healthy" and c.status == "False"), None)
    return PoolReport(
        phase=status.phase,
        reason="" if unhealthy is None else unhealthy.reason,
        message="" if unhealthy is None else unhealthy.message,
        wanted=status.wanted,
        wake_phase=wake.phase,
        wake_since_ms=_ms(wake.since),
        wake_began_ms=None if wake.phase == WakePhase.ZERO else _ms(wake.began),
        wake_passed={} if wake.phase in NOT_WAKING else wake.seconds,
        wake_last=wake.seconds if wake.phase == WakePhase.READY and "total" in wake.seconds else {},
        target_load=target_load,
    )


def _ms(at: float | None) -> int | None:
    return None if at is None else round(at * 1000)


def events(before: PoolStatus, after: PoolStatus) -> tuple[EmitEvent, ...]:
    """The Events for changes of the conditions and of the phase."""
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
        message = _EVENT_MESSAGES[after.phase].format(
            wanted=_groups(after.wanted), ready=_groups(after.ready)
        )
        emits.append(EmitEvent(kind="Normal", reason=after.phase, message=message))
    return tuple(emits)


def _groups(number: int) -> str:
    return "1 group is" if number == 1 else f"{number} groups are"


_EVENT_MESSAGES: dict[str, str] = {
    "Waking": "{wanted} wanted, {ready} ready.",
    "Ready": "{ready} ready.",
    "Draining": "{wanted} wanted: the others finish or release their tasks, then stop.",
    "Zero": "No group is wanted: the workers are gone, and the Ray head stays.",
    "Suspended": "No group was wanted for a while, so the Ray head is gone as well. The next task, request or "
    "session starts the head and a group again.",
    "Paused": "spec.paused is set: the operator changes nothing until this field is removed.",
}


def _phase(observed: Observed, inputs: PlanInputs, ready: int) -> Phase:
    if observed.pool.spec.paused:
        return "Paused"
    if inputs.problems and (ready < inputs.wanted or not observed.view.kuberay):
        return "Blocked"
    if not inputs.wanted:
        return _phase_at_zero(inputs)
    if inputs.outgoing:
        return "Replacing"
    if ready < inputs.wanted:
        return "Waking"
    return "Draining" if ready > inputs.wanted else "Ready"


def _phase_at_zero(inputs: PlanInputs) -> Phase:
    if any(state.workers for state in inputs.states):
        return "Draining"
    suspended = inputs.states and all(state.cluster.suspended for state in inputs.states)
    return "Suspended" if suspended else "Zero"


def _ready(inputs: PlanInputs, after: PoolStatus) -> Condition:
    wanted, ready = inputs.wanted, after.ready
    if inputs.kept_for_work:
        note = (
            "No group is wanted, but the pool has tasks, requests or sessions: the last group stays until they have "
            "ended."
        )
        return _condition("Ready", "True" if ready else "False", "HeldByTasks", note)
    if not wanted:
        return _condition(
            "Ready", "True", "AtZero", "No group is wanted; a task, a request or a session wakes the pool."
        )
    if ready >= wanted:
        return _condition("Ready", "True", "GroupsReady", f"{_groups(wanted)} wanted and ready.")
    progress = (
        "" if inputs.wake.phase == WakePhase.READY else f"; the most advanced is in phase {inputs.wake.phase}"
    )
    note = f"{ready} of {wanted} groups are ready{progress}."
    if inputs.problems:
        return _condition("Ready", "False", inputs.problems[0].reason, f"{note} {inputs.problems[0].message}")
    return _condition("Ready", "False", "Waking", note)


def _healthy(inputs: PlanInputs) -> Condition:
    if not inputs.problems:
        return _condition("Healthy", "True", "NoProblem", "")
    first, others = inputs.problems[0], inputs.problems[1:]
    more = f" Also: {', '.join(problem.reason for problem in others)}." if others else ""
    return _condition("Healthy", "False", first.reason, first.message + more)


def _up_to_date(inputs: PlanInputs) -> Condition:
    if inputs.outgoing:
        remaining = sum(len(state.replicas) for state in inputs.outgoing)
        note = f"Groups are replaced one by one after a change of the template; {remaining} old ones remain."
        return _condition("UpToDate", "False", "Replacing", note)
    return _condition("UpToDate", "True", "OneRevision", "All groups use the current template.")


def _condition(kind: str, truth: _Truth, reason: str, message: str) -> Condition:
    return Condition(type=kind, status=truth, reason=reason, message=message, last_transition_time=0.0)


def _with_transition(pool: PoolObject, new: Condition, *, now: float) -> Condition:
    """The condition with the time of its last transition.

    The old message stays if only its quoted part differs, so that a varying quote causes no write.
    """
    was = next((c for c in pool.status.conditions if c.type == new.type), None)
    changes: dict[str, object] = {"observed_generation": pool.generation}
    if was is None or was.status != new.status:
        changes["last_transition_time"] = round(now, 3)
    else:
        changes["last_transition_time"] = was.last_transition_time
        if was.reason == new.reason and _without_quote(was.message) == _without_quote(new.message):
            changes["message"] = was.message
    return new.model_copy(update=changes)


def _without_quote(message: str) -> str:
    return message.partition(QUOTE_MARK)[0]
