"""Follows a wake from zero to a ready group: the current phase, and the seconds that each earlier phase took."""

from __future__ import annotations

import math
from collections.abc import Sequence

from daybreak_server.domain.pools import (
    GROUP_PHASES,
    NOT_WAKING,
    WAKE_PHASES,
    GroupRecord,
    PoolView,
    WakePhase,
)
from daybreak_server.operator.crd.resource import WakeStatus
from daybreak_server.operator.planner.cluster_state import ClusterState
from daybreak_server.operator.planner.observed import Observed
from daybreak_server.operator.planner.removal_units import is_ready


def follow(observed: Observed, states: Sequence[ClusterState], *, wanted: int) -> WakeStatus:
    """The wake after this observation, with the seconds of the phases that have passed.

    An observation may come seconds late. Therefore a phase that a group reports begins at the time in the group's
    report. The last phase before the group existed ends when the group's first phase began. So the seconds of all
    phases add up to about the total.
    """
    before, now = observed.pool.status.wake, observed.now
    phase, group = _phase(observed, states, wanted)
    if phase == before.phase:
        return before
    if phase == WakePhase.ZERO:
        return WakeStatus(phase=WakePhase.ZERO, since=now, seconds=before.seconds)
    began, seconds = before.began, dict(before.seconds)
    passed, since = before.phase, before.since
    if before.phase in NOT_WAKING or began is None:
        # A ready pool that restarts does not wake from zero, so the age of the backlog is not the age of the wake.
        waited = _waited_s(observed.store) if before.phase != WakePhase.READY else None
        began, seconds = now - (waited or 0.0), {}
        passed, since = WakePhase.DETECT, began if waited is not None else None
    phase_began, group_began, measured = _group_times(group, began=began, now=now)
    if since is not None and passed in WAKE_PHASES:
        ended = phase_began if passed in GROUP_PHASES else group_began
        seconds[passed] = round(seconds.get(passed, 0.0) + max(0.0, ended - since), 3)
    seconds |= measured
    if phase == WakePhase.READY:
        seconds["total"] = round(phase_began - began, 3)
    return WakeStatus(phase=phase, since=phase_began, began=began, seconds=seconds)


def _waited_s(store: PoolView | None) -> float | None:
    """The longest time that a task, a request or a session has waited for a group."""
    if store is None:
        return None
    waits = [wait for wait in (store.oldest_wait_s, store.wanted_for_s) if wait is not None]
    return max(waits, default=None)


def _group_times(
    group: GroupRecord | None, *, began: float, now: float
) -> tuple[float, float, dict[str, float]]:
    """When the current phase began, when the group's first phase began, and the seconds of the group's earlier phases.

    Clocks differ, and a group may be older than the wake, so impossible times are ignored.
    """
    if group is None:
        return now, now, {}
    since = group.since_ms / 1000
    if 0 < since < began:
        return now, now, {}
    phase_began = since if began <= since <= now else now
    measured: dict[str, float] = {
        name: round(group.wake[name], 3) for name in GROUP_PHASES if name in group.wake
    }
    return phase_began, max(began, phase_began - sum(measured.values())), measured


def _phase(observed: Observed, states: Sequence[ClusterState], wanted: int) -> tuple[str, GroupRecord | None]:
    """The phase, and the group that has reached it; ``None`` for phases before a group exists."""
    groups = [group for state in states for group in state.groups]
    ready = [group for group in groups if is_ready(group)]
    if ready:
        return WakePhase.READY, min(ready, key=lambda group: (not group.wake, group.since_ms or math.inf))
    if not wanted:
        needed = observed.store is not None and observed.store.has_work
        return (WakePhase.DETECT if needed else WakePhase.ZERO), None
    waking = [group for group in groups if group.phase in WAKE_PHASES[:-1]]
    if waking:
        furthest = max(waking, key=lambda group: (_position(group.phase), -group.since_ms))
        return furthest.phase, furthest
    return max(map(_pod_phase, states), key=_position, default=WakePhase.PODS), None


def _position(phase: str) -> int:
    return WAKE_PHASES.index(WakePhase(phase))


def _pod_phase(state: ClusterState) -> WakePhase:
    best = WakePhase.PODS
    for replica in state.replicas:
        all_created = len(replica.pods) >= state.cluster.hosts
        if all_created and replica.complete(state.cluster.hosts):
            return WakePhase.RAY
        if all_created and all(pod.scheduled_at is not None for pod in replica.pods):
            best = WakePhase.IMAGE
    return best
