"""The way from zero to a ready group: which phase it is in, and what each took."""

from __future__ import annotations

from collections.abc import Sequence

from daybreak_server.domain.pools import GroupRecord
from daybreak_server.operator.lane import Lane
from daybreak_server.operator.observed import Observed
from daybreak_server.operator.resource import Wake
from daybreak_server.operator.units import formed

PHASES = ("detect", "pods", "image", "ray", "process_group", "model", "warm_up", "ready")
OF_THE_GROUP = ("process_group", "model", "warm_up")
"""Phases that a group measures itself, more exactly than anybody can from outside."""


def follow(observed: Observed, lanes: Sequence[Lane], *, wanted: int) -> Wake:
    """The wake after this look: phases that have passed are closed with their seconds."""
    before, now = observed.pool.status.wake, observed.now
    phase = _phase(observed, lanes, wanted)
    if phase == before.phase:
        return before
    if phase == "zero":
        return Wake(phase="zero", since=now, seconds=before.seconds)
    began, seconds = before.began, dict(before.seconds)
    if before.phase in {"zero", "ready"} or began is None:
        if phase == "ready" and before.phase == "ready":
            return before
        waited = observed.store.oldest_wait_s if observed.store is not None else None
        began, seconds = now - (waited or 0.0), {}
        if phase != "detect" and waited is not None:
            seconds["detect"] = round(waited, 3)
    elif before.since is not None and before.phase in PHASES:
        seconds[before.phase] = round(seconds.get(before.phase, 0.0) + now - before.since, 3)
    if phase == "ready":
        seconds |= _measured(lanes)
        seconds["total"] = round(now - began, 3)
    return Wake(phase=phase, since=now, began=began, seconds=seconds)


def _phase(observed: Observed, lanes: Sequence[Lane], wanted: int) -> str:
    groups = [group for lane in lanes for group in lane.groups]
    if any(formed(group) for group in groups):
        return "ready"
    if not wanted:
        live = observed.store.live if observed.store is not None else 0
        return "detect" if live else "zero"
    return max((_furthest(lane, groups) for lane in lanes), key=PHASES.index, default="pods")


def _furthest(lane: Lane, groups: Sequence[GroupRecord]) -> str:
    told = [group.phase for group in groups if group.phase in PHASES[:-1]]
    if told:
        return max(told, key=PHASES.index)
    best = "pods"
    for replica in lane.replicas:
        whole = len(replica.pods) >= lane.cluster.hosts
        if whole and replica.complete(lane.cluster.hosts):
            return "ray"
        if whole and all(pod.scheduled_at is not None for pod in replica.pods):
            best = "image"
    return best


def _measured(lanes: Sequence[Lane]) -> dict[str, float]:
    for lane in lanes:
        for group in lane.groups:
            if formed(group) and group.wake:
                return {name: round(group.wake[name], 3) for name in OF_THE_GROUP if name in group.wake}
    return {}
