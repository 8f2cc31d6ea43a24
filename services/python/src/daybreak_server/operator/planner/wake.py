"""The way from zero to a ready group: which phase it is in, and what each took."""

from __future__ import annotations

import math
from collections.abc import Sequence

from daybreak_server.domain.pools import GROUP_PHASES, RESTING_PHASES, WAKE_PHASES, GroupRecord, WakePhase
from daybreak_server.operator.crd.resource import Wake
from daybreak_server.operator.planner.cluster_state import ClusterState
from daybreak_server.operator.planner.observed import Observed
from daybreak_server.operator.planner.placement import is_ready


def follow(observed: Observed, lanes: Sequence[ClusterState], *, wanted: int) -> Wake:
    """The wake after this look: phases that have passed are closed with their seconds.

    A look comes up to seconds late. So a phase that a group tells of begins when the group says, and what was
    before it ends when the group's own phases began: the seconds of all phases are together about the total.
    """
    before, now = observed.pool.status.wake, observed.now
    phase, group = _phase(observed, lanes, wanted)
    if phase == before.phase:
        return before
    if phase == WakePhase.ZERO:
        return Wake(phase=WakePhase.ZERO, since=now, seconds=before.seconds)
    began, seconds = before.began, dict(before.seconds)
    passed, since = before.phase, before.since
    if before.phase in RESTING_PHASES or began is None:
        # A group that starts anew wakes nobody: how long a backlog has waited says nothing of it.
        waited = (
            observed.store.oldest_wait_s
            if observed.store is not None and before.phase != WakePhase.READY
            else None
        )
        began, seconds = now - (waited or 0.0), {}
        passed, since = WakePhase.DETECT, began if waited is not None else None
    at, own_began, measured = _told(group, began=began, now=now)
    if since is not None and passed in WAKE_PHASES:
        ended = at if passed in GROUP_PHASES else own_began
        seconds[passed] = round(seconds.get(passed, 0.0) + max(0.0, ended - since), 3)
    seconds |= measured
    if phase == WakePhase.READY:
        seconds["total"] = round(at - began, 3)
    return Wake(phase=phase, since=at, began=began, seconds=seconds)


def _told(group: GroupRecord | None, *, began: float, now: float) -> tuple[float, float, dict[str, float]]:
    """When the phase began, when the group's own phases did, and the seconds of those that are over.

    Clocks differ, and a group may have been there before the wake: what cannot be is not believed.
    """
    if group is None:
        return now, now, {}
    since = group.since_ms / 1000
    if 0 < since < began:
        return now, now, {}
    at = since if began <= since <= now else now
    measured: dict[str, float] = {
        name: round(group.wake[name], 3) for name in GROUP_PHASES if name in group.wake
    }
    return at, max(began, at - sum(measured.values())), measured


def _phase(observed: Observed, lanes: Sequence[ClusterState], wanted: int) -> tuple[str, GroupRecord | None]:
    """The phase, and the group that is so far; ``None`` while it is of the pods."""
    groups = [group for lane in lanes for group in lane.groups]
    ready = [group for group in groups if is_ready(group)]
    if ready:
        return WakePhase.READY, min(ready, key=lambda group: (not group.wake, group.since_ms or math.inf))
    if not wanted:
        live = observed.store.live if observed.store is not None else 0
        return (WakePhase.DETECT if live else WakePhase.ZERO), None
    own = [group for group in groups if group.phase in WAKE_PHASES[:-1]]
    if own:
        furthest = max(own, key=lambda group: (_place(group.phase), -group.since_ms))
        return furthest.phase, furthest
    return max(map(_of_pods, lanes), key=_place, default=WakePhase.PODS), None


def _place(phase: str) -> int:
    return WAKE_PHASES.index(WakePhase(phase))


def _of_pods(lane: ClusterState) -> WakePhase:
    best = WakePhase.PODS
    for replica in lane.replicas:
        whole = len(replica.pods) >= lane.cluster.hosts
        if whole and replica.complete(lane.cluster.hosts):
            return WakePhase.RAY
        if whole and all(pod.scheduled_at is not None for pod in replica.pods):
            best = WakePhase.IMAGE
    return best
