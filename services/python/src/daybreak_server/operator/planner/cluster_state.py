"""A lane: one RayCluster with all that belongs to it. At rest a pool has one; while it is renewed, two."""

from __future__ import annotations

from dataclasses import dataclass

from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.operator.planner.observed import Observed
from daybreak_server.operator.planner.placement import (
    GroupPlacement,
    Replica,
    is_busy,
    is_ready,
    placements_of,
    replicas_of,
)
from daybreak_server.ports.cluster import Pod, RayCluster, ServeView

STUCK_S = 60.0
"""A pod that is still there so long after its grace has nobody who ends it: its node is dead. It stays until somebody
deletes the node."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterState:
    """What was observed of one RayCluster."""

    cluster: RayCluster
    head: Pod | None
    workers: tuple[Pod, ...]
    """All worker pods, those that are about to go among them."""
    stuck: frozenset[str]
    """Those of them that will not go by themselves."""
    replicas: tuple[Replica, ...]
    """Those that nobody has ended."""
    units: tuple[GroupPlacement, ...]
    groups: tuple[GroupRecord, ...]
    """GroupStore with a rank on one of its pods, whatever becomes of that pod."""
    serve: ServeView | None

    @property
    def missing(self) -> int:
        """Replicas that KubeRay has still to make."""
        return max(0, self.cluster.replicas - len(self.replicas))

    @property
    def leaving(self) -> bool:
        """Whether hosts are on their way out."""
        return len(self.workers) - len(self.stuck) > sum(len(replica.pods) for replica in self.replicas)

    @property
    def still_named(self) -> tuple[str, ...]:
        """Pods that were named for deletion and that KubeRay has not ended yet: they must stay named."""
        there = {pod.name for pod in self.workers if not pod.terminating}
        return tuple(name for name in self.cluster.workers_to_delete if name in there)

    @property
    def present(self) -> int:
        """Replicas that still have a pod: their hosts are not free for others yet. A dead node's never will be."""
        return len({pod.replica for pod in self.workers if pod.name not in self.stuck})

    @property
    def is_ready(self) -> int:
        """GroupStore that can take tasks or work on one, on hosts that stay."""
        return sum(is_ready(group) for unit in self.units for group in unit.groups)

    @property
    def settled(self) -> bool:
        """Whether every replica that is wanted is there and carries a group that has formed."""
        return not self.missing and not self.leaving and self.is_ready >= self.cluster.replicas

    @property
    def head_ready(self) -> bool:
        """Whether the head answers."""
        return self.head is not None and self.head.ready and not self.head.terminating

    @property
    def works(self) -> bool:
        """Whether a group works on a task here."""
        return any(is_busy(group) for group in self.groups)

    @property
    def empty(self) -> bool:
        """Whether it has no workers, and none are to come."""
        return not self.workers and self.cluster.replicas == 0


def lanes(observed: Observed) -> tuple[ClusterState, ...]:
    """The pool's own RayClusters, the oldest first."""
    own = [c for c in observed.view.clusters if c.owner == observed.pool.uid and not c.deleting]
    return tuple(_lane(observed, c) for c in sorted(own, key=lambda c: (c.created_at, c.name)))


def _lane(observed: Observed, cluster: RayCluster) -> ClusterState:
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
        units=placements_of(replicas, groups),
        groups=groups,
        serve=observed.serve.get(cluster.name),
    )


def _stuck(pod: Pod, now: float) -> bool:
    return pod.terminating and pod.ends_at is not None and now - pod.ends_at > STUCK_S
