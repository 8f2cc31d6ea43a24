"""Builds observations of a cluster, and parts of them, for tests of the planner's rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

from daybreak_server.domain.ids import GroupId, TaskId
from daybreak_server.domain.pools import GroupRecord, GroupState, PoolView
from daybreak_server.operator.crd import names
from daybreak_server.operator.crd.resource import GeneratorPool, PoolSpec, PoolStatus
from daybreak_server.operator.planner.observed import Observed
from daybreak_server.operator.planner.plan import plan
from daybreak_server.ports.cluster import ClusterView, Pod, RayCluster, ServeView

NOW = 1_800_000_000.0
UID = "pool-uid"
A = TypeVar("A")
TEMPLATE: dict[str, Any] = {
    "spec": {
        "headGroupSpec": {"template": {"spec": {"containers": [{"image": "daybreak:1"}]}}},
        "workerGroupSpecs": [{"template": {"spec": {"containers": [{"image": "daybreak:1"}]}}}],
    }
}


def pool(*, status: PoolStatus | None = None, **spec: Any) -> GeneratorPool:
    """A pool ``video``, by default with two ranks on one host."""
    pool_spec = PoolSpec.model_validate({"ranks": 2, "rayCluster": TEMPLATE, **spec})
    return GeneratorPool(
        name="video", namespace="default", uid=UID, spec=pool_spec, status=status or PoolStatus()
    )


@cache
def spec_of(replicas: int, image: int, ranks: int, hosts: int, paused: bool, idle: str) -> PoolSpec:
    """A spec. Calls with the same arguments return the same object."""
    template = {"template": {"spec": {"containers": [{"image": f"daybreak:{image}"}]}}}
    return PoolSpec.model_validate(
        {
            "replicas": replicas,
            "ranks": ranks,
            "hostsPerGroup": hosts,
            "drainSeconds": 30,
            "paused": paused,
            "idle": {"mode": idle, "afterSeconds": 60},
            "rayCluster": {"spec": {"headGroupSpec": template, "workerGroupSpecs": [template]}},
        }
    )


def ray_cluster(video: GeneratorPool, replicas: int, **changes: Any) -> RayCluster:
    """The pool's RayCluster."""
    revision = names.revision(video)
    fields: dict[str, Any] = {
        "name": names.cluster_name(video.name, revision),
        "uid": "ray-uid",
        "resource_version": "7",
        "owner": UID,
        "revision": revision,
        "ranks": video.spec.ranks,
        "created_at": NOW - 1000,
        "worker_group": names.WORKER_GROUP,
        "replicas": replicas,
        "hosts": video.spec.hosts_per_group,
        "head_service": "video-head-svc",
    }
    return RayCluster(**{**fields, **changes})


def head(cluster: RayCluster, **changes: Any) -> Pod:
    """A ready head."""
    fields: dict[str, Any] = {"running": True, "ready": True, "running_at": NOW - 900}
    return Pod(name=f"{cluster.name}-head", cluster=cluster.name, head=True, **{**fields, **changes})


def hosts(cluster: RayCluster, *replicas: str, **changes: Any) -> tuple[Pod, ...]:
    """Running pods. The pods of replica ``a`` are ``a0``, ``a1``, …"""
    fields: dict[str, Any] = {
        "running": True,
        "ready": True,
        "scheduled_at": NOW - 600,
        "running_at": NOW - 590,
    }
    return tuple(
        Pod(name=f"{replica}{host}", cluster=cluster.name, replica=replica, **{**fields, **changes})
        for replica in replicas
        for host in range(cluster.hosts)
    )


def group(name: str, *pods: str, state: GroupState = GroupState.IDLE, **changes: Any) -> GroupRecord:
    """A group on these pods, by default idle for a minute."""
    fields: dict[str, Any] = {"ranks": 2, "since_ms": int((NOW - 60) * 1000)}
    return GroupRecord(id=GroupId(name), state=state, hosts=pods, **{**fields, **changes})


def busy(name: str, *pods: str, **changes: Any) -> GroupRecord:
    """A group with a task."""
    return group(name, *pods, state=GroupState.BUSY, tasks=(TaskId(f"video_{name}"),), **changes)


def observed(
    video: GeneratorPool,
    *clusters: RayCluster,
    pods: Sequence[Pod] = (),
    groups: Sequence[GroupRecord] = (),
    target: int | None = None,
    running: int | None = None,
    live: int | None = None,
    **changes: Any,
) -> Observed:
    """An observation. By default Serve runs exactly the ranks of the groups."""
    running_tasks = sum(bool(member.tasks) for member in groups)
    ranks = video.spec.ranks * len(groups)
    serve = {
        cluster.name: ServeView(
            status="RUNNING",
            attempt=video.status.application.attempt,
            target=cluster.replicas * cluster.ranks if target is None else target,
            running=ranks if running is None else running,
        )
        for cluster in clusters
    }
    fields: dict[str, Any] = {
        "now": NOW,
        "pool": video,
        "view": ClusterView(clusters=clusters, pods=tuple(pods)),
        "serve": serve,
        "store": PoolView(
            name="video",
            running=running_tasks,
            live=running_tasks if live is None else live,
            groups=tuple(groups),
        ),
    }
    return Observed(**{**fields, **changes})


def actions_of(observation: Observed, kind: type[A]) -> list[A]:
    """The planned actions of a kind."""
    return [action for action in plan(observation).actions if isinstance(action, kind)]


def only_action(observation: Observed, kind: type[A]) -> A:
    """The only planned action of a kind."""
    (action,) = actions_of(observation, kind)
    return action


def settled(observation: Observed) -> Observed:
    """``observation`` after the planned status has been written."""
    return replace(observation, pool=observation.pool.model_copy(update={"status": plan(observation).status}))
