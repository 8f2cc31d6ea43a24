"""Who goes first when there are too many, and when a unit may go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from daybreak_server.domain.pools import GroupRecord
from daybreak_server.operator.crd.resource import Drain
from daybreak_server.operator.planner.placement import GroupPlacement, is_busy, is_ready

FORM_S = 120.0
"""Hosts that run without a group may be about to form one: they are waited for so long, then they may go."""
RELEASE_S = 15.0
"""A group hands back at its drain deadline; so much later it is taken to be unable to."""

MARK_S = 30.0
"""A group is marked within so long of its record, else the record is written anew. Not at each look: an operator that
died each time in between would never come to the mark."""

Drains = Mapping[str, Drain]


def choose(units: Sequence[GroupPlacement], *, excess: int, drains: Drains) -> tuple[GroupPlacement, ...]:
    """Units to take away, the cheapest first, until ``excess`` replicas are covered."""
    chosen: list[GroupPlacement] = []
    for unit in sorted(units, key=lambda unit: _cost(unit, drains)):
        if excess <= 0:
            break
        chosen.append(unit)
        excess -= len(unit.replicas)
    return tuple(chosen)


def may_evict(unit: GroupPlacement, *, now: float, drains: Drains) -> bool:
    """Whether taking its hosts away now takes no task from a group that was not told to stop in time.

    An idle group is marked in the same round, before its hosts are named; the guard then finds it drained, or
    finds that it has taken a task just before.
    """
    if unit.groups:
        return all(not is_busy(group) or overdue(group, now=now, drains=drains) for group in unit.groups)
    # Without a group it must be one that cannot form at this very moment.
    since = [replica.running_since for replica in unit.replicas]
    return all(moment is None or now - moment >= FORM_S for moment in since)


def drained(group: GroupRecord) -> bool:
    """Whether it is marked and holds nothing: from then on it can get nothing."""
    return group.drain and not is_busy(group)


def overdue(group: GroupRecord, *, now: float, drains: Drains) -> bool:
    """Whether it was told, and has had all the time that it may take."""
    told = drains.get(group.id)
    return group.drain and told is not None and now >= told.deadline


def _cost(unit: GroupPlacement, drains: Drains) -> tuple[int, bool, float, str]:
    return (_tier(unit, drains), unit.mixed, _order(unit), unit.name)


def _tier(unit: GroupPlacement, drains: Drains) -> int:
    if not unit.groups:
        return 0 if any(replica.running_since is None for replica in unit.replicas) else 1
    return max(_tier_of(group, drains) for group in unit.groups)


def _tier_of(group: GroupRecord, drains: Drains) -> int:
    told = group.id in drains
    if is_busy(group):
        return 6 if told else 7
    if group.drain:
        return 3 if told else 2  # one that drains of its own accord has a node that goes anyway
    return 5 if is_ready(group) else 4


def _order(unit: GroupPlacement) -> float:
    """Idle ones by how long they are idle; working ones by how little they have done."""
    since = max((group.since_ms for group in unit.groups), default=0)
    return float(-since if any(is_busy(group) for group in unit.groups) else since)
