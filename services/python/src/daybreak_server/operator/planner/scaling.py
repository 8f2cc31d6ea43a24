"""Scales one RayCluster to a number of groups.

Up: at once, or by one replica at a time while ``serialize_growth`` is set. Down: choose victims, let them drain over
several plans, then name exactly their pods for deletion, because KubeRay would otherwise pick replicas without knowing
which of them are busy.

The caller decides the number of groups. ``plan._wanted`` keeps one ready group while there is work, even if no group is
requested.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from daybreak_server.operator.planner.actions import Action, ScaleDown, ScaleUp
from daybreak_server.operator.planner.cluster_state import ClusterState
from daybreak_server.operator.planner.eviction import Drains, choose, may_evict, overdue
from daybreak_server.operator.planner.removal_units import RemovalUnit

UNUSED_HOST_S = 300.0
"""If Serve wants a group, but starts none on a host for this long, the host is replaced."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingContext:
    """Facts that all RayClusters of the pool share."""

    now: float
    drains: Drains
    no_work: bool
    """The store answered, and the pool has no live tasks, requests or sessions."""
    serialize_growth: bool
    """True while a group spans several replicas, and from then on until the pool has exactly the wanted number of
    replicas and all its RayClusters are settled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """The decision for one RayCluster: the victims to drain, the patch, and the number of replicas after the patch."""

    replicas: int
    victims: tuple[RemovalUnit, ...] = ()
    actions: tuple[Action, ...] = ()
    requeue_soon: bool = False
    """Whether to plan again within a second or so."""
    evicted: tuple[RemovalUnit, ...] = field(default=())
    """The victims that are deleted now."""


def scale(state: ClusterState, *, wanted: int, context: ScalingContext) -> Scaled:
    """One step towards ``wanted`` groups."""
    if state.cluster.replicas < wanted:
        return _up(state, wanted, context)
    if state.cluster.replicas > wanted:
        return _down(state, wanted, context)
    return _repair(state, context)


def _up(state: ClusterState, wanted: int, context: ScalingContext) -> Scaled:
    replicas = state.cluster.replicas
    if context.serialize_growth:
        if not state.settled:
            return Scaled(replicas=replicas)
        wanted = replicas + 1
    grow = ScaleUp(cluster=state.cluster, replicas=wanted, workers_to_delete=state.still_named)
    return Scaled(replicas=wanted, actions=(grow,))


def _down(state: ClusterState, wanted: int, context: ScalingContext) -> Scaled:
    """First let KubeRay create the replicas that are missing, because only existing pods can be named for deletion. If
    the plan lowered ``replicas`` without naming a pod, and KubeRay created a missing replica at that moment, KubeRay
    would then delete an arbitrary replica."""
    current = state.cluster.replicas
    unmade = min(state.missing, current - wanted)
    victims = choose(state.units, excess=current - wanted - unmade, drains=context.drains)
    evictable = _evictable(victims, context)
    fewer = sum(len(unit.replicas) for unit in evictable)
    if unmade and state.cluster.problem:
        fewer += unmade  # KubeRay cannot create them, because of a quota for example
    if fewer:
        return _scale_down(state, victims, evictable, replicas=current - fewer, context=context)
    return Scaled(replicas=current, victims=victims, requeue_soon=True)


def _repair(state: ClusterState, context: ScalingContext) -> Scaled:
    """The number of replicas is right. Replace hosts that Serve does not use. While there is no work, also replace the
    replicas of a group that spans several replicas."""
    current = state.cluster.replicas
    if state.missing or state.leaving:
        return Scaled(replicas=current)
    victims = tuple(unit for unit in state.units if unit.mixed) if context.no_work else ()
    evictable = _evictable(victims, context)
    if evictable:
        fewer = sum(len(unit.replicas) for unit in evictable)
        return _scale_down(state, victims, evictable, replicas=current - fewer, context=context)
    unused = _unused(state, context)
    if unused and not victims:
        return _scale_down(state, (), unused, replicas=current, context=context)
    return Scaled(replicas=current, victims=victims, requeue_soon=bool(victims))


def _unused(state: ClusterState, context: ScalingContext) -> tuple[RemovalUnit, ...]:
    serve = state.serve
    if serve is None or serve.status not in {"DEPLOYING", "RUNNING", "UNHEALTHY"}:
        return ()
    if serve.running >= serve.target:
        return ()
    for unit in state.units:
        since = unit.replicas[0].running_since
        if not unit.groups and since is not None and context.now - since >= UNUSED_HOST_S:
            return (unit,)  # at most one per plan
    return ()


def _evictable(victims: tuple[RemovalUnit, ...], context: ScalingContext) -> tuple[RemovalUnit, ...]:
    return tuple(unit for unit in victims if may_evict(unit, now=context.now, drains=context.drains))


def _scale_down(
    state: ClusterState,
    victims: tuple[RemovalUnit, ...],
    evictable: tuple[RemovalUnit, ...],
    *,
    replicas: int,
    context: ScalingContext,
) -> Scaled:
    named = tuple(pod for unit in evictable for pod in unit.named_pods)
    overdue_groups = tuple(
        group.id
        for unit in evictable
        for group in unit.groups
        if overdue(group, now=context.now, drains=context.drains)
    )
    remove = ScaleDown(
        cluster=state.cluster,
        replicas=replicas,
        named_pods=named,
        hosts=tuple(host for unit in evictable for host in unit.hosts),
        max_remaining=replicas,
        workers_to_delete=(*state.still_named, *named),
        overdue=overdue_groups,
    )
    return Scaled(replicas=replicas, victims=victims, actions=(remove,), requeue_soon=True, evicted=evictable)
