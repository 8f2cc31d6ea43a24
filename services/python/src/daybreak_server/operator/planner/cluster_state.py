"""One RayCluster with its pods, groups and Serve application. A pool has one; a pool in a rollout has two or more."""

from __future__ import annotations

from dataclasses import dataclass

from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.operator.planner.observed import Observed
from daybreak_server.operator.planner.removal_units import (
    RemovalUnit,
    ReplicaPods,
    is_busy,
    is_ready,
    removal_units_of,
    replicas_of,
)
from daybreak_server.ports.cluster import Pod, RayCluster, ServeView

STUCK_S = 60.0
"""A pod that still exists this long after its grace period counts as one on a dead node. Such a pod exists until
the node is deleted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterState:
    """One RayCluster, as observed."""

    cluster: RayCluster
    head: Pod | None
    workers: tuple[Pod, ...]
    """All worker pods, terminating ones included."""
    stuck: frozenset[str]
    """The worker pods on dead nodes, which do not terminate by themselves."""
    replicas: tuple[ReplicaPods, ...]
    """The replicas that are neither being deleted nor named for deletion."""
    units: tuple[RemovalUnit, ...]
    groups: tuple[GroupRecord, ...]
    """Groups with a rank on a pod of this cluster. The pod may be terminating."""
    serve: ServeView | None

    @property
    def missing(self) -> int:
        """How many replicas KubeRay has yet to create."""
        return max(0, self.cluster.replicas - len(self.replicas))

    @property
    def leaving(self) -> bool:
        """Whether a replica that is being deleted or named for deletion still has a pod that is not on a dead node."""
        return len(self.workers) - len(self.stuck) > sum(len(replica.pods) for replica in self.replicas)

    @property
    def still_named(self) -> tuple[str, ...]:
        """Pods in ``workers_to_delete`` that KubeRay has not deleted yet. They must stay in that list."""
        existing = {pod.name for pod in self.workers if not pod.terminating}
        return tuple(name for name in self.cluster.workers_to_delete if name in existing)

    @property
    def occupied_replicas(self) -> int:
        """How many replicas still occupy hosts. Pods on dead nodes do not count: their hosts never become free."""
        return len({pod.replica for pod in self.workers if pod.name not in self.stuck})

    @property
    def ready_groups(self) -> int:
        """How many groups with a host in ``replicas`` are ready (``is_ready``)."""
        return sum(is_ready(group) for unit in self.units for group in unit.groups)

    @property
    def settled(self) -> bool:
        """Whether every wanted replica exists and has a ready group, and no replica is leaving."""
        return not self.missing and not self.leaving and self.ready_groups >= self.cluster.replicas

    @property
    def head_ready(self) -> bool:
        """Whether the head pod is ready."""
        return self.head is not None and self.head.ready and not self.head.terminating

    @property
    def busy(self) -> bool:
        """Whether a group of this cluster holds a task, a request or a session."""
        return any(is_busy(group) for group in self.groups)

    @property
    def empty(self) -> bool:
        """Whether the cluster has no workers and wants none."""
        return not self.workers and self.cluster.replicas == 0


def cluster_states(observed: Observed) -> tuple[ClusterState, ...]:
    """The pool's own RayClusters that are not being deleted, the oldest first."""
    owned = [c for c in observed.view.clusters if c.owner == observed.pool.uid and not c.deleting]
    return tuple(_cluster_state(observed, c) for c in sorted(owned, key=lambda c: (c.created_at, c.name)))


def _cluster_state(observed: Observed, cluster: RayCluster) -> ClusterState:
    pods = [pod for pod in observed.view.pods if pod.cluster == cluster.name]
    workers = tuple(pod for pod in pods if not pod.head)
    names = {pod.name for pod in workers}
    known = observed.store.groups if observed.store is not None else ()
    groups = tuple(g for g in known if g.state is not GroupState.LOST and names.intersection(g.hosts))
    replicas = replicas_of(cluster, workers)
    return ClusterState(
        cluster=cluster,
        head=next((pod for pod in pods if pod.head and not pod.terminating), None),
        workers=workers,
        stuck=frozenset(pod.name for pod in workers if _stuck(pod, observed.now)),
        replicas=replicas,
        units=removal_units_of(replicas, groups),
        groups=groups,
        serve=observed.serve.get(cluster.name),
    )


def _stuck(pod: Pod, now: float) -> bool:
    return pod.terminating and pod.ends_at is not None and now - pod.ends_at > STUCK_S
