"""The preconditions of actions, which are checked on fresh reads just before the action."""

from __future__ import annotations

from dataclasses import replace

import pytest
from operator_samples import busy, group, head, hosts, pool, ray_cluster

from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.pools import GroupRecord, PoolView
from daybreak_server.operator.planner.actions import (
    CordonHosts,
    DeleteCluster,
    MarkDrain,
    PutApplication,
    ScaleApplication,
    ScaleDown,
    Suspend,
)
from daybreak_server.operator.planner.preconditions import Preconditioned, refusal
from daybreak_server.ports.cluster import ServeView

RC = ray_cluster(pool(replicas=1, hostsPerGroup=2), 2)
PODS = (head(RC), *hosts(RC, "a", "b"))
REMOVE = ScaleDown(
    cluster=RC, replicas=1, named_pods=("a0",), hosts=("a0", "a1"), max_remaining=1, workers_to_delete=("a0",)
)
DRAINED = group("a", "a0", "a1", drain=True)
SCALE = ScaleApplication(cluster=RC, application="video", deployment="VideoGenerator", target=0)


def store(*groups: GroupRecord, live: int = 0) -> PoolView:
    """The pool in Redis, with these groups."""
    return PoolView(name="video", live=live, groups=groups)


def test_a_drained_victim_may_be_removed() -> None:
    """A busy victim may be removed after its drain deadline."""
    assert refusal(REMOVE, cluster=RC, pods=PODS, store=store(DRAINED)) is None
    late = replace(REMOVE, overdue=(GroupId("a"),))
    assert refusal(late, cluster=RC, pods=PODS, store=store(busy("a", "a0", "a1", drain=True))) is None


@pytest.mark.parametrize(
    "groups",
    [
        (busy("a", "a0", "a1", drain=True),),  # took a task just before it was marked
        (group("a", "a0", "a1"),),  # a new group: not marked
        (DRAINED, busy("x", "a1", "b1")),  # another group spans two replicas
    ],
)
def test_hosts_of_a_possibly_busy_group_stay(groups: tuple[GroupRecord, ...]) -> None:
    """Fresh reads decide, whatever the plan observed."""
    assert "not drained" in (refusal(REMOVE, cluster=RC, pods=PODS, store=store(*groups)) or "")


def test_kuberay_is_never_left_to_choose() -> None:
    """If a named pod is gone, or one replica too many exists, a scale-down would let KubeRay choose the pods."""
    gone = [pod for pod in PODS if not pod.name.startswith("a")]
    assert refusal(REMOVE, cluster=RC, pods=gone, store=store()) == "pod a0 no longer exists"
    more = [*PODS, *hosts(RC, "c")]
    assert "would remain" in (refusal(REMOVE, cluster=RC, pods=more, store=store(DRAINED)) or "")


@pytest.mark.parametrize(
    "action",
    [
        MarkDrain(group=GroupId("a"), on=False, cluster=RC, hosts=("a0", "a1")),
        CordonHosts(hosts=("a0",), cordoned=False, cluster=RC),
    ],
)
def test_a_host_named_for_deletion_is_not_reopened(action: Preconditioned) -> None:
    """A group on this host would take a task, and then lose the host."""
    assert refusal(action, cluster=RC, pods=PODS, store=store(DRAINED)) is None
    named = replace(RC, workers_to_delete=("a1",))
    assert refusal(action, cluster=named, pods=PODS, store=store(DRAINED)) is not None


def test_a_cluster_with_workers_is_neither_deleted_nor_suspended() -> None:
    """A cluster whose pool has a live task is not suspended either."""
    empty = PODS[:1]
    for action in (DeleteCluster(cluster=RC), Suspend(cluster=RC)):
        assert refusal(action, cluster=RC, pods=PODS, store=store()) is not None
        assert refusal(action, cluster=RC, pods=empty, store=store()) is None
    assert refusal(Suspend(cluster=RC), cluster=RC, pods=empty, store=store(live=1)) is not None


def test_serve_stops_no_busy_group() -> None:
    """A new configuration or a target of zero would stop all groups.

    Any other target below the number of running ranks might stop the busy group.
    """
    with_busy_group = store(busy("a", "a0", "a1"))
    for action in (PutApplication(cluster=RC, config={}), SCALE):
        assert refusal(action, cluster=RC, pods=PODS, store=with_busy_group) == "a group works here"
        assert refusal(action, cluster=RC, pods=PODS, store=store(DRAINED)) is None
    lower = replace(SCALE, target=2, max_running=2)
    assert (
        refusal(lower, cluster=RC, pods=PODS, store=with_busy_group, serve=ServeView(running=4)) is not None
    )
    assert refusal(lower, cluster=RC, pods=PODS, store=with_busy_group, serve=ServeView(running=2)) is None


def test_nothing_is_done_to_a_raycluster_that_is_gone() -> None:
    """Somebody may have deleted the RayCluster by hand."""
    assert refusal(REMOVE, cluster=None, pods=(), store=store()) == "it no longer exists"
