"""Chooses which removal units (``removal_units.py``) to evict when there are too many replicas, and when.

:func:`choose` takes the cheapest units first: those without a group, then those with an idle group, and those with a
busy group last. The operator then marks their groups to drain and records a deadline for each. :func:`may_evict` allows
the eviction as soon as no group on the unit is busy, or once the deadline of the busy ones has passed. A group that was
chosen once stays the first choice of its kind, so that plans do not change their minds and drain one group after
another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.operator.crd.resource import Drain
from daybreak_server.operator.planner.removal_units import RemovalUnit, is_busy, is_ready, requests

FORM_S = 120.0
"""Hosts that have run without a group for less than this time are not evicted: they may be about to form one."""
RELEASE_S = 15.0
"""A group releases its task ``drainSeconds`` after it is marked to drain. If it still has the task this many seconds
later, its drain deadline has passed: the operator assumes that the group cannot release the task."""

MARK_S = 30.0
"""How long the operator may take to set a group's drain mark after it has written the group's drain record.

The operator writes the record into the status, then sets the mark in the store. If it dies in between, the next plan
finds the record and sets the mark. A plan renews the record only if the mark is still missing after this time. If every
plan renewed the record, an operator that dies after each write of the status would never set the mark."""

Drains = Mapping[str, Drain]


def choose(units: Sequence[RemovalUnit], *, excess: int, drains: Drains) -> tuple[RemovalUnit, ...]:
    """The units to evict, the cheapest first, until ``excess`` replicas are covered."""
    chosen: list[RemovalUnit] = []
    for unit in sorted(units, key=lambda unit: _cost(unit, drains)):
        if excess <= 0:
            break
        chosen.append(unit)
        excess -= len(unit.replicas)
    return tuple(chosen)


def may_evict(unit: RemovalUnit, *, now: float, drains: Drains) -> bool:
    """Whether the unit's hosts may be evicted now: no group on them is busy, except groups past their drain deadline.

    To evict an idle group, a plan first marks the group to drain, then names its hosts for deletion. Before the
    operator names the hosts, a precondition checks that the group has drained: the group may have taken a task just
    before the mark. A group that answers requests or holds sessions is different: a plan names its hosts only after the
    group has reported that it has drained. The store knows only the requests and sessions that this group has reported.
    The group reports when it refreshes its registration, and only then does it see the mark.
    """
    if unit.groups:
        return all(_may_leave(group) or overdue(group, now=now, drains=drains) for group in unit.groups)
    # Without a group: not before FORM_S, because a group may be forming here.
    since = [replica.running_since for replica in unit.replicas]
    return all(moment is None or now - moment >= FORM_S for moment in since)


def _may_leave(group: GroupRecord) -> bool:
    return drained(group) if _reports_load(group) else not is_busy(group)


def drained(group: GroupRecord) -> bool:
    """Whether the group is marked to drain and holds no work, so that it can no longer get any.

    The store gives no task to a group with the mark. A group that answers requests or holds sessions must also have
    reported that it drains: its requests do not come from the store, and its sessions count only once it has reported
    them.
    """
    if _reports_load(group) and group.state is not GroupState.DRAINING:
        return False
    return group.drain and not is_busy(group)


def _reports_load(group: GroupRecord) -> bool:
    """Whether the group answers requests or holds sessions, so that its load is what it last reported."""
    return (group.endpoint is not None or group.load is not None) and is_ready(group)


def overdue(group: GroupRecord, *, now: float, drains: Drains) -> bool:
    """Whether the group is marked to drain and its drain deadline has passed."""
    record = drains.get(group.id)
    return group.drain and record is not None and now >= record.deadline


def _cost(unit: RemovalUnit, drains: Drains) -> tuple[int, bool, int, float, str]:
    held = sum(map(requests, unit.groups))
    return (_tier(unit, drains), unit.mixed, held, _order(unit), unit.name)


def _tier(unit: RemovalUnit, drains: Drains) -> int:
    """How costly the eviction of a unit is; the lowest tier is evicted first.

    0. It has no group, and not all of its hosts run yet.
    1. It has no group, but its hosts run, so a group may be forming.
    2. Its group is not busy and drains by itself, because its node is going away.
    3. Its group is not busy, and the operator has already chosen it and marked it to drain.
    4. Its group is not ready: it starts or loads.
    5. Its group is ready and idle.
    6. Its group is busy, and the operator has already chosen it.
    7. Its group is busy.

    A unit with several groups has the tier of the most costly one. In a tier, units of one replica come first.
    Units of several replicas follow. Among the former and among the latter, those with the fewest requests or sessions
    come first.
    """
    if not unit.groups:
        return 0 if any(replica.running_since is None for replica in unit.replicas) else 1
    return max(_tier_of(group, drains) for group in unit.groups)


def _tier_of(group: GroupRecord, drains: Drains) -> int:
    chosen_before = group.id in drains
    if is_busy(group):
        return 6 if chosen_before else 7
    if group.drain:
        return 3 if chosen_before else 2  # a group that drains by itself is on a node that is going away
    return 5 if is_ready(group) else 4


def _order(unit: RemovalUnit) -> float:
    """Idle groups: the longest idle first. Busy groups: the most recently started first."""
    since = max((group.since_ms for group in unit.groups), default=0)
    return float(-since if any(is_busy(group) for group in unit.groups) else since)
