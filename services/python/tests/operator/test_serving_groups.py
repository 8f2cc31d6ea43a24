"""Pools whose groups answer requests or hold sessions: what protects a group from removal, and which group is removed
first, and when."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from operator_samples import (
    NOW,
    actions_of,
    group,
    head,
    hosts,
    observed,
    only_action,
    pool,
    ray_cluster,
)
from operator_world import POOL, World
from test_reconciler import Api, reconciler

from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.pools import GroupRecord, GroupState, PoolView
from daybreak_server.domain.serving_load import Load
from daybreak_server.operator.crd import names
from daybreak_server.operator.crd.resource import Drain, GeneratorPool, PoolStatus, WakeStatus
from daybreak_server.operator.planner.actions import MarkDrain, ScaleDown, Suspend
from daybreak_server.operator.planner.observed import Observed
from daybreak_server.operator.planner.plan import plan
from daybreak_server.operator.planner.preconditions import refusal


def serving(name: str, *pods: str, requests: int = 0, **changes: Any) -> GroupRecord:
    """A group that answers requests."""
    state = GroupState.BUSY if requests else GroupState.IDLE
    fields: dict[str, Any] = {
        "state": state,
        "endpoint": f"http://{name}:8000",
        "load": Load(in_flight=requests),
    }
    return group(name, *pods, **{**fields, **changes})


def holding(name: str, *pods: str, sessions: int = 0, **changes: Any) -> GroupRecord:
    """A group that holds sessions. It has no endpoint."""
    state = GroupState.BUSY if sessions else GroupState.IDLE
    return group(name, *pods, **{"state": state, "load": Load(sessions=sessions), **changes})


def drain_of(*groups: str) -> PoolStatus:
    return PoolStatus(drains=tuple(Drain(group=name, since=NOW - 5, deadline=NOW + 70) for name in groups))


def view(*groups: GroupRecord, demand: int = 0, **changes: Any) -> PoolView:
    wanted = 1 if demand else 0
    return PoolView(name="video", groups=groups, demand=demand, wanted=wanted, **changes)


def two_groups(video: GeneratorPool, a: GroupRecord, b: GroupRecord) -> Observed:
    """Two groups, on the replicas a and b."""
    rc = ray_cluster(video, 2)
    return observed(
        video, rc, pods=[head(rc), *hosts(rc, "a", "b")], groups=[a, b], store=view(a, b, demand=9)
    )


# ── which group ───────────────────────────────────────────────────────────────────────────────────────────


def test_of_two_busy_groups_the_one_with_fewer_requests_is_drained() -> None:
    """The group ``many`` has been busy for a shorter time, which counts only if the numbers of requests are equal."""
    video = pool(replicas=1)
    few = serving("few", "a0", requests=2, since_ms=int((NOW - 500) * 1000))
    many = serving("many", "b0", requests=7, since_ms=int((NOW - 5) * 1000))
    assert only_action(two_groups(video, few, many), MarkDrain).group == "few"
    swapped = two_groups(
        video, replace(few, load=Load(in_flight=2, waiting=6)), replace(many, load=Load(in_flight=7))
    )
    assert only_action(swapped, MarkDrain).group == "many"


def test_the_group_with_fewer_sessions_is_drained_first() -> None:
    video = pool(replicas=1)
    few, many = holding("few", "a0", sessions=1), holding("many", "b0", sessions=2)
    assert only_action(two_groups(video, few, many), MarkDrain).group == "few"
    more = replace(few, load=Load(sessions=3))
    assert only_action(two_groups(video, more, many), MarkDrain).group == "many"


def test_a_group_without_requests_is_drained_before_any_other() -> None:
    video = pool(replicas=1)
    observation = two_groups(video, serving("busy", "a0", requests=1), serving("idle", "b0"))
    assert only_action(observation, MarkDrain).group == "idle"


# ── when ──────────────────────────────────────────────────────────────────────────────────────────────────


def draining(state: GroupState, *, requests: int = 0, status: PoolStatus | None = None) -> Observed:
    """Group a is marked to drain. ``state`` and ``requests`` are what it has last reported."""
    marked = serving("a", "a0", requests=requests, state=state, drain=True)
    video = pool(replicas=1, status=status or drain_of("a"))
    return two_groups(video, marked, serving("b", "b0", requests=5))


@pytest.mark.parametrize(
    "observation",
    [
        draining(GroupState.IDLE),  # it has not seen the mark yet, so it still takes requests
        draining(GroupState.DRAINING, requests=1),
        draining(GroupState.BUSY, requests=1),
    ],
)
def test_a_group_stays_until_it_has_reported_that_it_drains_and_is_empty(observation: Observed) -> None:
    assert actions_of(observation, ScaleDown) == []
    assert plan(observation).requeue_after_s <= 2


@pytest.mark.parametrize(
    ("state", "removed"), [(GroupState.IDLE, False), (GroupState.BUSY, False), (GroupState.DRAINING, True)]
)
def test_a_group_without_sessions_is_removed_once_it_has_reported_that_it_drains(
    state: GroupState, removed: bool
) -> None:
    """Before this report, the group may have taken a session that it has not reported yet."""
    marked = holding("a", "a0", state=state, drain=True)
    video = pool(replicas=1, status=drain_of("a"))
    observation = two_groups(video, marked, holding("b", "b0", sessions=5))
    assert bool(actions_of(observation, ScaleDown)) == removed


def test_a_drained_group_is_removed() -> None:
    assert only_action(draining(GroupState.DRAINING), ScaleDown).named_pods == ("a0",)


def test_a_group_that_never_ends_its_requests_is_removed_at_its_deadline() -> None:
    late = PoolStatus(drains=(Drain(group="a", since=NOW - 90, deadline=NOW - 1),))
    for state in (GroupState.DRAINING, GroupState.BUSY):
        removed = only_action(draining(state, requests=1, status=late), ScaleDown)
        assert (removed.named_pods, removed.overdue) == (("a0",), ("a",))


@pytest.mark.parametrize(
    ("state", "requests", "refused"),
    [
        (GroupState.DRAINING, 0, False),
        (GroupState.DRAINING, 1, True),
        (GroupState.IDLE, 0, True),
        (GroupState.BUSY, 1, True),
    ],
)
def test_a_fresh_read_decides_whether_its_hosts_go(state: GroupState, requests: int, refused: bool) -> None:
    rc = ray_cluster(pool(replicas=1), 2)
    remove = ScaleDown(
        cluster=rc, replicas=1, named_pods=("a0",), hosts=("a0",), max_remaining=1, workers_to_delete=("a0",)
    )
    now = serving("a", "a0", requests=requests, state=state, drain=True)
    pods = (head(rc), *hosts(rc, "a", "b"))
    assert (refusal(remove, cluster=rc, pods=pods, store=view(now)) is not None) == refused
    overdue = replace(remove, overdue=(GroupId("a"),))
    assert refusal(overdue, cluster=rc, pods=pods, store=view(now)) is None


def test_a_group_that_still_loads_is_removed_without_a_drain() -> None:
    """Such a group has an endpoint but no requests, because gateways send requests only to ready groups."""
    video = pool(replicas=1, status=drain_of("a"))
    loading = serving("a", "a0", state=GroupState.LOADING, drain=True)
    assert only_action(two_groups(video, loading, serving("b", "b0")), ScaleDown).named_pods == ("a0",)


# ── zero and back ─────────────────────────────────────────────────────────────────────────────────────────


def test_the_last_group_stays_while_there_are_requests() -> None:
    """The group stays even if KEDA wants zero groups."""
    video = pool(replicas=0)
    rc = ray_cluster(video, 1)
    last = serving("a", "a0")
    pods = [head(rc), *hosts(rc, "a")]
    held = observed(video, rc, pods=pods, groups=[last], store=view(last, demand=1))
    assert (actions_of(held, MarkDrain), plan(held).status.wanted) == ([], 1)
    over = observed(video, rc, pods=pods, groups=[last], store=view(last))
    assert only_action(over, MarkDrain).group == "a"


def test_requests_begin_a_wake_at_the_time_when_they_first_needed_a_group() -> None:
    video = pool(status=PoolStatus(wake=WakeStatus()))
    rc = ray_cluster(video, 0)
    store = view(demand=3, wanted_for_s=1.5)
    first = plan(observed(video, rc, pods=[head(rc)], store=store)).status.wake
    assert (first.phase, first.since, first.began) == ("detect", NOW, NOW - 1.5)
    scaled = pool(replicas=1, status=PoolStatus(wake=first))
    then = plan(observed(scaled, rc, pods=[head(rc)], store=store, now=NOW + 2)).status.wake
    assert (then.phase, then.seconds) == ("pods", {"detect": 3.5})


def test_a_head_is_not_suspended_while_there_are_requests() -> None:
    before = PoolStatus(zero_since=NOW - 3600)
    video = pool(idle={"mode": "cluster", "afterSeconds": 60}, status=before)
    rc = ray_cluster(video, 0)
    quiet = observed(video, rc, pods=[head(rc)], store=view(), target=0)
    assert only_action(quiet, Suspend).cluster == rc
    assert actions_of(replace(quiet, store=view(demand=1)), Suspend) == []
    assert refusal(Suspend(cluster=rc), cluster=rc, pods=[head(rc)], store=view()) is None
    assert refusal(Suspend(cluster=rc), cluster=rc, pods=[head(rc)], store=view(demand=1)) is not None


def test_requests_that_keda_does_not_see_are_reported() -> None:
    stuck = PoolStatus(wake=WakeStatus(phase="detect", since=NOW - 600, began=NOW - 600))
    video = pool(status=stuck)
    rc = ray_cluster(video, 0)
    observation = observed(video, rc, pods=[head(rc)], store=view(demand=1))
    healthy = next(c for c in plan(observation).status.conditions if c.type == "Healthy")
    assert (healthy.status, healthy.reason) == ("False", "KedaSilent")


# ── the target load ───────────────────────────────────────────────────────────────────────────────────────


def test_a_change_of_the_target_load_replaces_no_group() -> None:
    assert names.revision(pool(targetLoad=2)) == names.revision(pool(targetLoad=3)) == names.revision(pool())


@pytest.mark.parametrize(
    "other", [{}, {"warmSchedule": [{"from": "08:00", "to": "18:00", "groups": 1, "timeZone": "Mars"}]}]
)
async def test_the_operator_publishes_the_target_load(other: dict[str, Any]) -> None:
    """If another field of the spec is invalid, the operator publishes the target load, but changes nothing else."""
    world = World()
    api = Api(world)
    operator, _ = reconciler(world, api)
    manifest = api.manifest()
    await operator.step(POOL, manifest)
    assert world.report is not None
    assert world.report.target_load is None
    manifest["spec"] |= {"targetLoad": 2.5, **other}
    await operator.step(POOL, manifest)
    assert world.report.target_load == 2.5
