"""The operator's actions, as values. The executor runs them in order, and stops at a failure if later actions may rely
on the failed one.

Every change of a RayCluster's spec is a JSON Patch that begins with tests, so that a plan made from a stale view
changes nothing. A merge patch would replace the whole list of worker groups.

Actions that may stop a group, uncordon a host or remove a drain mark have preconditions, which their docstrings list.
The executor checks them on fresh reads right before the change (``preconditions.py``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from daybreak_server.domain.ids import GroupId
from daybreak_server.operator.crd.resource import PoolStatus
from daybreak_server.ports.cluster import RayCluster


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteStatus:
    """Replace the pool's status. This action comes before those that rely on the new status.

    After a restart, the operator knows only those of its earlier decisions that are in the status.
    """

    status: PoolStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateCluster:
    """Create a RayCluster."""

    manifest: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteCluster:
    """Delete a RayCluster that has no groups left. Precondition: it has no worker pods."""

    cluster: RayCluster


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleUp:
    """Raise the number of replicas."""

    cluster: RayCluster
    replicas: int
    workers_to_delete: tuple[str, ...] = ()
    """Pods that an earlier action named for deletion and that still exist. Pods that are gone leave the list."""

    def operations(self) -> list[dict[str, Any]]:
        """The JSON Patch. Unlike that of ``ScaleDown``, it does not test the resource version, because more hosts never
        harm a group."""
        return [*_tests(self.cluster), *_scale(self.cluster, self.replicas, self.workers_to_delete)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleDown:
    """Remove exactly ``hosts`` and lower ``replicas``, or keep ``replicas`` so that KubeRay replaces the hosts.

    Preconditions:
    * Every pod of ``named_pods`` still exists. Otherwise KubeRay would delete another pod.
    * Besides the replicas to remove, at most ``max_remaining`` exist. Otherwise KubeRay would also delete replicas that
      it chooses itself.
    * Every group on the replicas to remove has drained, or is in ``overdue``.
    """

    cluster: RayCluster
    replicas: int
    named_pods: tuple[str, ...]
    """One pod of each replica to remove. KubeRay then deletes the other pods of the replica too."""
    hosts: tuple[str, ...]
    """All pods of the replicas to remove."""
    max_remaining: int
    workers_to_delete: tuple[str, ...]
    """``named_pods``, and pods that an earlier action named for deletion and that still exist."""
    overdue: tuple[GroupId, ...] = ()
    """Groups whose drain deadline has passed. They are removed even if they are busy."""

    def operations(self) -> list[dict[str, Any]]:
        """The JSON Patch."""
        version = {"op": "test", "path": "/metadata/resourceVersion", "value": self.cluster.resource_version}
        changes = _scale(self.cluster, self.replicas, self.workers_to_delete)
        return [version, *_tests(self.cluster), *changes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspend:
    """Suspend the RayCluster, head included. Preconditions: no worker pods exist, and the pool has no work."""

    cluster: RayCluster

    def operations(self) -> list[dict[str, Any]]:
        """The JSON Patch."""
        version = {"op": "test", "path": "/metadata/resourceVersion", "value": self.cluster.resource_version}
        return [version, *_tests(self.cluster), {"op": "add", "path": "/spec/suspend", "value": True}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """Resume a suspended RayCluster: the head and the workers start at the same time."""

    cluster: RayCluster
    replicas: int

    def operations(self) -> list[dict[str, Any]]:
        """The JSON Patch."""
        wake = {"op": "add", "path": "/spec/suspend", "value": False}
        return [*_tests(self.cluster), wake, *_scale(self.cluster, self.replicas, ())]


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkDrain:
    """Mark a group to drain (``on``), so that it takes no more work, or remove the mark.

    Precondition for removing the mark: none of the group's hosts is terminating or named for deletion.
    """

    group: GroupId
    on: bool
    cluster: RayCluster | None = None
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CordonHosts:
    """Cordon hosts that ``ScaleDown`` will name for deletion, or uncordon them.

    Without a cordon, a group could form on hosts just before KubeRay deletes them. Precondition for uncordoning: none
    of the hosts is terminating or named for deletion.
    """

    hosts: tuple[str, ...]
    cordoned: bool = True
    cluster: RayCluster | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PutApplication:
    """Deploy the Serve applications on a head. Precondition: no group of its RayCluster is busy."""

    cluster: RayCluster
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleApplication:
    """Set how many ranks Serve runs.

    When Serve picks ranks to stop, it does not know which of them are busy. So the operator sets no target below the
    number of running ranks, except 0.

    Preconditions:
    * If the target is lowered to a number above 0: at most ``max_running`` ranks run.
    * If the target is 0: no group of the RayCluster is busy.
    """

    cluster: RayCluster
    application: str
    deployment: str
    target: int
    max_running: int | None = None
    """``None``: the new target stops either all ranks or none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmitEvent:
    """Record a Kubernetes Event."""

    kind: Literal["Normal", "Warning"]
    reason: str
    message: str


Action = (
    WriteStatus
    | CreateCluster
    | DeleteCluster
    | ScaleUp
    | ScaleDown
    | Suspend
    | Resume
    | MarkDrain
    | CordonHosts
    | PutApplication
    | ScaleApplication
    | EmitEvent
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolPlan:
    """The actions, in order, and when to plan again if no watch event comes first."""

    actions: tuple[Action, ...]
    status: PoolStatus
    requeue_after_s: float


def _tests(cluster: RayCluster) -> list[dict[str, Any]]:
    group = f"/spec/workerGroupSpecs/{cluster.index}"
    return [
        {"op": "test", "path": "/metadata/uid", "value": cluster.uid},
        {"op": "test", "path": f"{group}/groupName", "value": cluster.worker_group},
        {"op": "test", "path": f"{group}/replicas", "value": cluster.replicas},
    ]


def _scale(cluster: RayCluster, replicas: int, workers_to_delete: tuple[str, ...]) -> list[dict[str, Any]]:
    group = f"/spec/workerGroupSpecs/{cluster.index}"
    # `add` replaces an existing value, and also works where KubeRay has dropped an empty `scaleStrategy`.
    return [
        {"op": "replace", "path": f"{group}/replicas", "value": replicas},
        {
            "op": "add",
            "path": f"{group}/scaleStrategy",
            "value": {"workersToDelete": list(workers_to_delete)},
        },
    ]
