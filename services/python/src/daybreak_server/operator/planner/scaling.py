"""One RayCluster to a number of groups: up at once; down by draining, then taking exactly the drained ones."""

from __future__ import annotations

from dataclasses import dataclass, field

from daybreak_server.operator.planner.actions import Action, ScaleDown, ScaleUp
from daybreak_server.operator.planner.cluster_state import ClusterState
from daybreak_server.operator.planner.eviction import Drains, choose, may_evict, overdue
from daybreak_server.operator.planner.placement import GroupPlacement

ZOMBIE_S = 300.0
"""Hosts on which Serve starts no group for so long, though it wants one, are made anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingContext:
    """What all lanes share."""

    now: float
    drains: Drains
    nothing_live: bool
    """The store was asked, and no task is live."""
    serialize_growth: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """What follows for a lane: who is to drain, what is patched, and how many replicas there are then."""

    replicas: int
    victims: tuple[GroupPlacement, ...] = ()
    actions: tuple[Action, ...] = ()
    hurry: bool = False
    """Whether it waits for something that takes a second or so."""
    gone: tuple[GroupPlacement, ...] = field(default=())
    """The victims that go now."""


def scale(lane: ClusterState, *, wanted: int, moment: ScalingContext) -> Scaled:
    """Towards ``wanted`` groups."""
    if lane.cluster.replicas < wanted:
        return _up(lane, wanted, moment)
    if lane.cluster.replicas > wanted:
        return _down(lane, wanted, moment)
    return _mend(lane, moment)


def _up(lane: ClusterState, wanted: int, moment: ScalingContext) -> Scaled:
    now_has = lane.cluster.replicas
    if moment.serialize_growth:
        if not lane.settled:
            return Scaled(replicas=now_has)
        wanted = now_has + 1
    grow = ScaleUp(cluster=lane.cluster, replicas=wanted, workers_to_delete=lane.still_named)
    return Scaled(replicas=wanted, actions=(grow,))


def _down(lane: ClusterState, wanted: int, moment: ScalingContext) -> Scaled:
    """Replicas that KubeRay has still to make are waited for, so that they can be named: lowering the number
    without a name, just when it makes one, would have it take any other instead."""
    has = lane.cluster.replicas
    unmade = min(lane.missing, has - wanted)
    victims = choose(lane.units, excess=has - wanted - unmade, drains=moment.drains)
    going = _going(victims, moment)
    fewer = sum(len(unit.replicas) for unit in going)
    if unmade and lane.cluster.problem:
        fewer += unmade  # it may not make them: a quota, say
    if fewer:
        return _remove(lane, victims, going, replicas=has - fewer, moment=moment)
    return Scaled(replicas=has, victims=victims, hurry=True)


def _mend(lane: ClusterState, moment: ScalingContext) -> Scaled:
    """The number is right. A group across two replicas is made anew when nothing waits; so are hosts that
    Serve does not use."""
    has = lane.cluster.replicas
    if lane.missing or lane.leaving:
        return Scaled(replicas=has)
    victims = tuple(unit for unit in lane.units if unit.mixed) if moment.nothing_live else ()
    going = _going(victims, moment)
    if going:
        fewer = sum(len(unit.replicas) for unit in going)
        return _remove(lane, victims, going, replicas=has - fewer, moment=moment)
    unused = _unused(lane, moment)
    if unused and not victims:
        return _remove(lane, (), unused, replicas=has, moment=moment)
    return Scaled(replicas=has, victims=victims, hurry=bool(victims))


def _unused(lane: ClusterState, moment: ScalingContext) -> tuple[GroupPlacement, ...]:
    serve = lane.serve
    if serve is None or serve.status not in {"DEPLOYING", "RUNNING", "UNHEALTHY"}:
        return ()
    if serve.running >= serve.target:
        return ()
    for unit in lane.units:
        since = unit.replicas[0].running_since
        if not unit.groups and since is not None and moment.now - since >= ZOMBIE_S:
            return (unit,)  # one at a time
    return ()


def _going(victims: tuple[GroupPlacement, ...], moment: ScalingContext) -> tuple[GroupPlacement, ...]:
    return tuple(unit for unit in victims if may_evict(unit, now=moment.now, drains=moment.drains))


def _remove(
    lane: ClusterState,
    victims: tuple[GroupPlacement, ...],
    going: tuple[GroupPlacement, ...],
    *,
    replicas: int,
    moment: ScalingContext,
) -> Scaled:
    named = tuple(pod for unit in going for pod in unit.victims)
    late = tuple(
        group.id
        for unit in going
        for group in unit.groups
        if overdue(group, now=moment.now, drains=moment.drains)
    )
    remove = ScaleDown(
        cluster=lane.cluster,
        replicas=replicas,
        victims=named,
        hosts=tuple(host for unit in going for host in unit.hosts),
        most_left=replicas,
        workers_to_delete=(*lane.still_named, *named),
        overdue=late,
    )
    return Scaled(replicas=replicas, victims=victims, actions=(remove,), hurry=True, gone=going)
