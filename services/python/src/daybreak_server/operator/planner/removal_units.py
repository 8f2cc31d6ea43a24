"""Which replicas and groups can only be removed together.

KubeRay creates and deletes replicas (``hosts`` pods each). Serve starts gangs of ranks wherever there is room and does
not know about replicas. A group usually sits on one replica. After a failure it may span several. Then none of
these replicas can be removed alone, so they and all groups on them form one removal unit. The operator always removes
whole units.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.ports.cluster import Pod, RayCluster


@dataclass(frozen=True, slots=True)
class ReplicaPods:
    """A KubeRay replica with the pods that it has now."""

    name: str
    pods: tuple[Pod, ...]

    @property
    def hosts(self) -> frozenset[str]:
        """The names of its pods."""
        return frozenset(pod.name for pod in self.pods)

    def complete(self, hosts: int) -> bool:
        """Whether all of its pods exist and run."""
        return len(self.pods) >= hosts and all(pod.running for pod in self.pods)

    @property
    def running_since(self) -> float | None:
        """When the last of its pods began to run; ``None`` while one of them does not run."""
        moments = [pod.running_at for pod in self.pods]
        return None if None in moments else max(moment for moment in moments if moment is not None)


@dataclass(frozen=True, slots=True)
class RemovalUnit:
    """Replicas and groups that can only be removed together: usually one replica and its group, or a replica that
    has no group yet."""

    replicas: tuple[ReplicaPods, ...]
    groups: tuple[GroupRecord, ...]

    @property
    def mixed(self) -> bool:
        """Whether a group spans several replicas."""
        return len(self.replicas) > 1

    @property
    def name(self) -> str:
        """A stable sort key."""
        return min(replica.name for replica in self.replicas)

    @property
    def hosts(self) -> tuple[str, ...]:
        """The names of its pods."""
        return tuple(sorted(host for replica in self.replicas for host in replica.hosts))

    @property
    def named_pods(self) -> tuple[str, ...]:
        """One pod of each replica: KubeRay deletes the other pods of the replica with it."""
        return tuple(min(replica.hosts) for replica in self.replicas)


def is_busy(group: GroupRecord) -> bool:
    """Whether the group holds a task, a request or a session. A lost group holds none."""
    holds = bool(group.tasks) or group.state is GroupState.BUSY or requests(group) > 0
    return group.state is not GroupState.LOST and holds


def requests(group: GroupRecord) -> int:
    """How many requests and sessions the group holds; 0 for a group that works on tasks."""
    return group.load.held if group.load is not None else 0


def is_ready(group: GroupRecord) -> bool:
    """Whether the group has formed: it can take work, holds work, or drains."""
    return group.state.ready


def replicas_of(cluster: RayCluster, pods: Iterable[Pod]) -> tuple[ReplicaPods, ...]:
    """The worker replicas of a cluster, excluding those being deleted or named for deletion."""
    by_name: dict[str, list[Pod]] = defaultdict(list)
    leaving: set[str] = set()
    for pod in pods:
        if pod.cluster == cluster.name and not pod.head:
            by_name[pod.replica].append(pod)
            if pod.terminating or pod.name in cluster.workers_to_delete:
                leaving.add(pod.replica)  # KubeRay deletes the other pods of the replica too
    return tuple(
        ReplicaPods(name, tuple(sorted(found, key=lambda pod: pod.name)))
        for name, found in sorted(by_name.items())
        if name not in leaving
    )


def removal_units_of(
    replicas: Sequence[ReplicaPods], groups: Iterable[GroupRecord]
) -> tuple[RemovalUnit, ...]:
    """The removal units. Replicas that share a group are in the same unit."""
    replica_of_host = {host: replica.name for replica in replicas for host in replica.hosts}
    parent = {replica.name: replica.name for replica in replicas}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    placed: list[tuple[str, GroupRecord]] = []
    for group in groups:
        if group.state is GroupState.LOST:
            continue
        names = sorted({replica_of_host[host] for host in group.hosts if host in replica_of_host})
        if names:
            placed.append((names[0], group))
            for other in names[1:]:
                parent[root(other)] = root(names[0])
    members: dict[str, list[ReplicaPods]] = defaultdict(list)
    inside: dict[str, list[GroupRecord]] = defaultdict(list)
    for replica in replicas:
        members[root(replica.name)].append(replica)
    for name, group in placed:
        inside[root(name)].append(group)
    return tuple(
        RemovalUnit(tuple(found), tuple(sorted(inside[name], key=lambda group: group.id)))
        for name, found in sorted(members.items())
    )
