"""The rules of the operator's plan. Each test plans from an observation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from operator_samples import (
    NOW,
    actions_of,
    busy,
    group,
    head,
    hosts,
    observed,
    only_action,
    pool,
    ray_cluster,
    settled,
)

from daybreak_server.domain.causes import Cause
from daybreak_server.domain.pools import GroupState
from daybreak_server.operator.crd.resource import Drain, PoolStatus, WakeStatus
from daybreak_server.operator.planner.actions import (
    CordonHosts,
    CreateCluster,
    EmitEvent,
    MarkDrain,
    Resume,
    ScaleApplication,
    ScaleDown,
    ScaleUp,
    Suspend,
    WriteStatus,
)
from daybreak_server.operator.planner.observed import Observed
from daybreak_server.operator.planner.plan import plan
from daybreak_server.ports.cluster import ClusterView, KubeWarning, WaitingReason

REDIS_DOWN = Cause(reason="RedisUnreachable", message="Connection refused")


def test_a_new_pool_gets_a_raycluster_with_a_warm_head_and_no_workers() -> None:
    """With the default `idle.mode: workers`, the head runs before the first task."""
    manifest = only_action(observed(pool()), CreateCluster).manifest
    spec: dict[str, Any] = manifest["spec"]
    assert (spec["suspend"], spec["workerGroupSpecs"][0]["replicas"]) == (False, 0)
    assert manifest["metadata"]["ownerReferences"][0]["uid"] == "pool-uid"


def test_with_idle_cluster_a_new_pool_starts_suspended() -> None:
    """Nothing runs while no group is wanted."""
    manifest = only_action(observed(pool(idle={"mode": "cluster"})), CreateCluster).manifest
    assert manifest["spec"]["suspend"] is True


def test_the_first_group_is_one_patch_and_serves_target_follows_at_once() -> None:
    """Scaling up needs no wait, so one plan raises the replicas and Serve's target."""
    video = pool(replicas=1)
    rc = ray_cluster(video, 0)
    observation = observed(video, rc, pods=[head(rc)])
    grow = only_action(observation, ScaleUp)
    assert grow.operations() == [
        {"op": "test", "path": "/metadata/uid", "value": "ray-uid"},
        {"op": "test", "path": "/spec/workerGroupSpecs/0/groupName", "value": "ranks"},
        {"op": "test", "path": "/spec/workerGroupSpecs/0/replicas", "value": 0},
        {"op": "replace", "path": "/spec/workerGroupSpecs/0/replicas", "value": 1},
        {"op": "add", "path": "/spec/workerGroupSpecs/0/scaleStrategy", "value": {"workersToDelete": []}},
    ]
    assert only_action(observation, ScaleApplication).target == 2


def test_a_settled_pool_needs_no_action() -> None:
    """There is no patch, status write or Event, however often the operator plans."""
    video = pool(replicas=2)
    rc = ray_cluster(video, 2)
    observation = settled(
        observed(video, rc, pods=[head(rc), *hosts(rc, "a", "b")], groups=[busy("g", "a0"), group("h", "b0")])
    )
    assert plan(observation).actions == ()
    assert plan(replace(observation, now=NOW + 3600)).actions == ()


def test_the_idle_group_is_evicted_and_drains_first() -> None:
    """The idle group is recorded, cordoned and marked before its pod is named for removal. The busy group stays."""
    video = pool(replicas=1)
    rc = ray_cluster(video, 2)
    observation = observed(
        video, rc, pods=[head(rc), *hosts(rc, "a", "b")], groups=[group("idle", "a0"), busy("busy", "b0")]
    )
    order = [type(action) for action in plan(observation).actions if not isinstance(action, EmitEvent)]
    assert order == [WriteStatus, CordonHosts, MarkDrain, ScaleDown]
    assert [drain.group for drain in plan(observation).status.drains] == ["idle"]
    assert (only_action(observation, MarkDrain).group, only_action(observation, ScaleDown).named_pods) == (
        "idle",
        ("a0",),
    )


def test_a_drained_group_is_removed_with_exactly_its_hosts() -> None:
    """One named pod is enough to remove the whole replica. Serve's target is lowered only once the ranks are gone."""
    video = pool(replicas=1, hostsPerGroup=2, status=drains("idle"))
    rc = ray_cluster(video, 2)
    pods = [head(rc), *hosts(rc, "a", "b")]
    observation = observed(
        video, rc, pods=pods, groups=[drained("idle", "a0", "a1"), busy("busy", "b0", "b1")]
    )
    remove = only_action(observation, ScaleDown)
    assert (remove.named_pods, remove.hosts, remove.replicas) == (("a0",), ("a0", "a1"), 1)
    assert remove.operations()[0] == {"op": "test", "path": "/metadata/resourceVersion", "value": "7"}
    assert only_action(observation, CordonHosts).hosts == ("a0", "a1")
    assert actions_of(observation, ScaleApplication) == []


def test_serves_target_is_lowered_once_only_the_remaining_ranks_run() -> None:
    """Serve does not know which ranks are busy when it chooses the ranks to stop."""
    video = pool(replicas=1)
    rc = ray_cluster(video, 1)
    pods = [head(rc), *hosts(rc, "b")]
    still = observed(video, rc, pods=pods, groups=[busy("busy", "b0")], target=4, running=4)
    assert actions_of(still, ScaleApplication) == []
    gone = observed(video, rc, pods=pods, groups=[busy("busy", "b0")], target=4, running=2)
    assert only_action(gone, ScaleApplication).max_running == 2


def test_a_busy_group_stays_until_its_drain_deadline() -> None:
    """A marked group continues its task. After the deadline it is listed as overdue and removed."""
    video = pool(replicas=1, status=drains("slow"))
    rc = ray_cluster(video, 2)
    groups = [busy("slow", "a0", drain=True, since_ms=int(NOW * 1000)), busy("other", "b0")]
    observation = observed(video, rc, pods=[head(rc), *hosts(rc, "a", "b")], groups=groups)
    assert actions_of(observation, ScaleDown) == []
    late = replace(observation, now=NOW + 46)
    assert only_action(late, ScaleDown).overdue == ("slow",)


def test_a_draining_group_returns_to_service_when_it_is_wanted_again() -> None:
    """KEDA may want more groups while one drains."""
    video = pool(replicas=2, status=drains("idle"))
    rc = ray_cluster(video, 2)
    observation = observed(
        video, rc, pods=[head(rc), *hosts(rc, "a", "b")], groups=[drained("idle", "a0"), group("h", "b0")]
    )
    mark = only_action(observation, MarkDrain)
    assert (mark.group, mark.on, mark.cluster) == ("idle", False, rc)


def test_pending_pods_are_evicted_before_any_group() -> None:
    """No group runs on pending pods, so their eviction costs nothing."""
    video = pool(replicas=1)
    rc = ray_cluster(video, 2)
    pending = hosts(rc, "p", running=False, ready=False, running_at=None, scheduled_at=None)
    observation = observed(
        video, rc, pods=[head(rc), *hosts(rc, "a"), *pending], groups=[group("idle", "a0")]
    )
    assert only_action(observation, ScaleDown).named_pods == ("p0",)


def test_the_last_group_stays_while_tasks_are_live() -> None:
    """A pool scales to zero only if no task is live, even if its spec asks for zero."""
    video = pool(replicas=0)
    rc = ray_cluster(video, 1)
    observation = observed(video, rc, pods=[head(rc), *hosts(rc, "a")], groups=[busy("busy", "a0")])
    assert actions_of(observation, MarkDrain) == []
    assert next(c.reason for c in plan(observation).status.conditions if c.type == "Ready") == "HeldByTasks"


def test_while_redis_is_down_no_group_is_removed() -> None:
    """The operator does not know which groups are busy. It can still scale up."""
    video = pool(replicas=0)
    rc = ray_cluster(video, 2)
    pods = [head(rc), *hosts(rc, "a", "b")]
    observation = observed(video, rc, pods=pods, store=None, store_error=REDIS_DOWN)
    assert {type(action) for action in plan(observation).actions} <= {WriteStatus, EmitEvent}
    healthy = next(c for c in plan(observation).status.conditions if c.type == "Healthy")
    assert healthy.reason == "RedisUnreachable"
    more = observed(pool(replicas=3), rc, pods=pods, store=None, store_error=REDIS_DOWN)
    assert only_action(more, ScaleUp).replicas == 3


def test_a_group_across_two_replicas_is_replaced_once_no_task_is_live() -> None:
    """Both replicas are removed together, and their groups return one by one."""
    video = pool(replicas=2, hostsPerGroup=2)
    rc = ray_cluster(video, 2)
    pods = [head(rc), *hosts(rc, "a", "b")]
    groups = [group("g", "a0", "b0"), group("h", "a1", "b1")]
    observation = observed(video, rc, pods=pods, groups=groups)
    assert {mark.group for mark in actions_of(observation, MarkDrain)} == {"g", "h"}
    assert actions_of(observed(video, rc, pods=pods, groups=groups, live=1), MarkDrain) == []
    gone = [drained("g", "a0", "b0"), drained("h", "a1", "b1")]
    draining = pool(replicas=2, hostsPerGroup=2, status=drains("g", "h"))
    remove = only_action(observed(draining, rc, pods=pods, groups=gone), ScaleDown)
    assert (remove.named_pods, remove.replicas) == (("a0", "b0"), 0)
    slow = pool(replicas=2, hostsPerGroup=2, status=PoolStatus(serialize_growth=True))
    grown = observed(slow, ray_cluster(slow, 0), pods=[head(rc)])
    assert only_action(grown, ScaleUp).replicas == 1


def test_groups_are_added_one_by_one_beside_a_dead_nodes_pod() -> None:
    """The plan waits for terminating hosts, but not for pods on dead nodes."""
    video = pool(replicas=2, status=PoolStatus(serialize_growth=True))
    rc = ray_cluster(video, 1)

    def observation(over: float) -> Observed:
        dead = hosts(rc, "d", ready=False, terminating=True, ends_at=NOW - over)
        return observed(video, rc, pods=[head(rc), *hosts(rc, "a"), *dead], groups=[group("g", "a0")])

    assert actions_of(observation(50.0), ScaleUp) == []
    assert only_action(observation(70.0), ScaleUp).replicas == 2


def test_an_idle_head_is_suspended_and_resumes_with_all_pods_at_once() -> None:
    """With `idle.mode: cluster`, the head is suspended once no task is live, the target is 0 and no worker is left."""
    video = pool(idle={"mode": "cluster", "afterSeconds": 60}, status=PoolStatus(zero_since=NOW - 61))
    rc = ray_cluster(video, 0)
    observation = observed(video, rc, pods=[head(rc)])
    assert only_action(observation, Suspend).cluster == rc
    assert actions_of(replace(observation, now=NOW - 10), Suspend) == []
    suspended = replace(rc, suspend=True, suspended=True)
    wake = observed(pool(replicas=2, idle={"mode": "cluster"}), suspended)
    assert only_action(wake, Resume).replicas == 2


def test_a_paused_pool_changes_only_its_status() -> None:
    """A paused pool scales neither up nor down."""
    video = pool(replicas=3, paused=True)
    rc = ray_cluster(video, 1)
    observation = observed(video, rc, pods=[head(rc), *hosts(rc, "a")], groups=[group("g", "a0")])
    assert {type(action) for action in plan(observation).actions} == {WriteStatus, EmitEvent}
    assert plan(observation).status.phase == "Paused"


def test_min_warm_and_its_schedule_are_a_floor() -> None:
    """The pool keeps this floor even if KEDA wants fewer groups. ``NOW`` is a Friday, 08:00 UTC."""
    window = {"days": ["Fri"], "from": "09:00", "to": "17:00", "timeZone": "Europe/Berlin", "groups": 3}
    video = pool(minWarm=1, warmSchedule=[window])
    rc = ray_cluster(video, 0)
    observation = observed(video, rc, pods=[head(rc)])
    assert only_action(observation, ScaleUp).replicas == 3
    assert only_action(replace(observation, now=NOW + 86400), ScaleUp).replicas == 1


def test_a_missing_kuberay_is_reported_and_nothing_is_tried() -> None:
    """A condition names the cause and what to do. One Event reports the cause, and is not repeated."""
    observation = observed(pool(replicas=1), view=ClusterView(kuberay=False))
    status = plan(observation).status
    assert status.phase == "Blocked"
    assert "kuberay-operator" in next(c.message for c in status.conditions if c.type == "Healthy")
    assert [emit.reason for emit in actions_of(observation, EmitEvent)] == ["KubeRayMissing"]
    assert actions_of(settled(observation), EmitEvent) == []


def _healthy_reason(observation: Observed) -> str:
    return next(c.reason for c in plan(observation).status.conditions if c.type == "Healthy")


@pytest.mark.parametrize(("waited", "reason"), [(50, "NoProblem"), (70, "KedaSilent")])
def test_live_tasks_that_keda_does_not_see_are_reported(waited: int, reason: str) -> None:
    """The report comes after a minute, but not if a group is wanted or the pool is paused."""
    wake = WakeStatus(phase="detect", since=NOW - waited, began=NOW - waited)
    video = pool(status=PoolStatus(wake=wake))
    rc = ray_cluster(video, 0)
    assert _healthy_reason(observed(video, rc, pods=[head(rc)], live=1)) == reason
    assert _healthy_reason(observed(video, rc, pods=[head(rc)], live=0)) == "NoProblem"
    paused = pool(status=PoolStatus(wake=wake), paused=True)
    assert _healthy_reason(observed(paused, ray_cluster(paused, 0), live=1)) == "NoProblem"
    scaled = pool(status=PoolStatus(wake=wake), replicas=1)
    assert _healthy_reason(observed(scaled, ray_cluster(scaled, 1), live=1)) == "NoProblem"


@pytest.mark.parametrize(("waited", "reason"), [(50, "NoProblem"), (70, "KubeRaySilent")])
def test_a_silent_kuberay_is_reported(waited: int, reason: str) -> None:
    """The report comes after a minute without pods, unless the RayCluster's status has the wanted number of workers."""
    wake = WakeStatus(phase="pods", since=NOW - waited, began=NOW - waited)
    video = pool(replicas=1, status=PoolStatus(wake=wake))
    silent, observing = ray_cluster(video, 1, acknowledged=False), ray_cluster(video, 1)
    assert _healthy_reason(observed(video, silent, pods=[head(silent)], live=1)) == reason
    assert _healthy_reason(observed(video, observing, pods=[head(observing)], live=1)) == "NoProblem"


def test_an_image_that_cannot_be_pulled_is_reported() -> None:
    """The condition names the pod, the reason and what to check."""
    video = pool(replicas=1)
    rc = ray_cluster(video, 1)
    stuck = hosts(
        rc, "p", running=False, ready=False, waiting=WaitingReason(reason="ImagePullBackOff", message="404")
    )
    status = plan(observed(video, rc, pods=[head(rc), *stuck])).status
    healthy = next(c for c in status.conditions if c.type == "Healthy")
    assert healthy.reason == "ImagePullFailed"
    assert "p0" in healthy.message


def test_a_refusal_counts_until_a_pod_is_created_or_another_wake_begins() -> None:
    """An old warning must not report a quota that has been raised since."""

    def reason_with(*pods: Any, wake: WakeStatus) -> str:
        video = pool(replicas=1, status=PoolStatus(wake=wake))
        rc = ray_cluster(video, 1)
        quota = Cause(reason="QuotaExceeded", message="exceeded quota: e2e")
        words = KubeWarning(reason="FailedCreate", message="…", about=rc.name, at=NOW - 20, cause=quota)
        view = ClusterView(clusters=(rc,), pods=(head(rc), *pods), warnings=(words,))
        status = plan(observed(video, rc, view=view)).status
        return next(c.reason for c in status.conditions if c.type == "Healthy")

    wake = WakeStatus(phase="pods", since=NOW - 30, began=NOW - 30)
    rc = ray_cluster(pool(replicas=1), 1)
    earlier, later = (hosts(rc, "a", created_at=NOW - at, ready=False) for at in (25, 10))
    assert reason_with(wake=wake) == reason_with(*earlier, wake=wake) == "QuotaExceeded"
    assert reason_with(*later, wake=wake) == "NoProblem"
    assert reason_with(wake=WakeStatus(phase="pods", since=NOW - 5, began=NOW - 5)) == "NoProblem"
    assert reason_with(wake=WakeStatus(phase="zero", since=NOW - 5)) == "NoProblem"


def test_status_counts_complete_groups_and_always_has_a_selector() -> None:
    """HPA requires the selector even at zero."""
    empty = plan(observed(pool())).status
    assert (empty.replicas, empty.selector) == (0, "daybreak.dev/pool=video,daybreak.dev/role=rank")
    video = pool(replicas=2, hostsPerGroup=2)
    rc = ray_cluster(video, 2)
    half = [*hosts(rc, "a"), *hosts(rc, "b")[:1]]
    status = plan(observed(video, rc, pods=[head(rc), *half], groups=[group("g", "a0", "a1")])).status
    assert (status.replicas, status.ready) == (1, 1)


def drained(name: str, *pods: str) -> Any:
    """A marked group without a task."""
    return group(name, *pods, state=GroupState.DRAINING, drain=True)


def drains(*groups: str) -> PoolStatus:
    """A status in which these groups were just marked."""
    return PoolStatus(drains=tuple(Drain(group=name, since=NOW, deadline=NOW + 45) for name in groups))


def test_another_wording_of_the_same_cause_causes_no_write_and_no_event() -> None:
    """The cause is the same, although Kubernetes words it differently."""
    video = pool(replicas=1)
    cluster = ray_cluster(video, 1)
    video = video.model_copy(update={"status": plan(observed(video, cluster, pods=[head(cluster)])).status})
    waiting_pods = [
        hosts(
            cluster,
            "a",
            running=False,
            ready=False,
            running_at=None,
            waiting=WaitingReason(reason="ImagePullBackOff", message=message),
        )
        for message in ("failed to pull", "back-off")
    ]
    first = plan(observed(video, cluster, pods=[head(cluster), *waiting_pods[0]]))
    assert any(
        isinstance(action, EmitEvent) and action.reason == "ImagePullFailed" for action in first.actions
    )
    video = video.model_copy(update={"status": first.status})
    second = plan(observed(video, cluster, pods=[head(cluster), *waiting_pods[1]]))
    assert not [action for action in second.actions if isinstance(action, WriteStatus | EmitEvent)]
    assert "failed to pull" in next(c.message for c in second.status.conditions if c.type == "Healthy")
