"""What the operator can do, as values. The shell carries them out in order and stops at the first that fails.

Every change of a RayCluster is a JSON Patch that begins with tests, so that a plan made from an old reading
does nothing. A merge patch would replace the whole list of worker groups.
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
    """Replace the pool's status. Always the first action: it is what a successor knows."""

    status: PoolStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateCluster:
    """Make a RayCluster."""

    manifest: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteCluster:
    """Take a RayCluster away that has no groups any more. Checked afresh: it has no worker pods."""

    cluster: RayCluster


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleUp:
    """Raise the number of replicas."""

    cluster: RayCluster
    replicas: int
    workers_to_delete: tuple[str, ...] = ()
    """Those that were named before and are still there; the others are forgotten."""

    def operations(self) -> list[dict[str, Any]]:
        """The JSON Patch. It needs no newer reading than of ``replicas``: more hosts never harm a group."""
        return [*_tests(self.cluster), *_scale(self.cluster, self.replicas, self.workers_to_delete)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleDown:
    """Take exactly these hosts away, and lower the number of replicas (or keep it: they are made anew).

    Checked afresh by the shell, right before the patch: every pod of ``victims`` is still there (KubeRay would
    take another one instead), no more than ``most_left`` replicas stay behind (it would take some of them as
    well), and no group on the victims works, save those of ``overdue``.
    """

    cluster: RayCluster
    replicas: int
    victims: tuple[str, ...]
    """One pod for each replica that goes: KubeRay takes the others of the replica with it."""
    hosts: tuple[str, ...]
    """All pods of those replicas."""
    most_left: int
    workers_to_delete: tuple[str, ...]
    """The victims, and those that were named before and are still there."""
    overdue: tuple[GroupId, ...] = ()

    def operations(self) -> list[dict[str, Any]]:
        """The JSON Patch."""
        version = {"op": "test", "path": "/metadata/resourceVersion", "value": self.cluster.resource_version}
        changes = _scale(self.cluster, self.replicas, self.workers_to_delete)
        return [version, *_tests(self.cluster), *changes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspend:
    """Let the head go too. Checked afresh: there are no worker pods, and nothing is live."""

    cluster: RayCluster

    def operations(self) -> list[dict[str, Any]]:
        """The JSON Patch."""
        version = {"op": "test", "path": "/metadata/resourceVersion", "value": self.cluster.resource_version}
        return [version, *_tests(self.cluster), {"op": "add", "path": "/spec/suspend", "value": True}]


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """Let the head come back, and its workers with it: all pods start at once."""

    cluster: RayCluster
    replicas: int

    def operations(self) -> list[dict[str, Any]]:
        """The JSON Patch."""
        wake = {"op": "add", "path": "/spec/suspend", "value": False}
        return [*_tests(self.cluster), wake, *_scale(self.cluster, self.replicas, ())]


@dataclass(frozen=True, slots=True, kw_only=True)
class MarkDrain:
    """Tell a group to take no more tasks (``on``), or that it may again.

    Checked afresh before it may again: none of its hosts has been named for deletion meanwhile.
    """

    group: GroupId
    on: bool
    cluster: RayCluster | None = None
    hosts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CordonHosts:
    """No new group may work on these hosts (or it may again): they are about to be named for deletion.

    Without it a group could form on hosts in the moment before KubeRay ends them. Checked afresh before they
    are opened again: none of them has been named meanwhile.
    """

    hosts: tuple[str, ...]
    closed: bool = True
    cluster: RayCluster | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PutApplication:
    """Put the Serve applications onto a head."""

    cluster: RayCluster
    config: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaleApplication:
    """Set how many ranks Serve runs.

    Serve picks what it stops without knowing what works, so this is lowered only to what runs anyway. Checked
    afresh by the shell: no more than ``most_running`` ranks run.
    """

    cluster: RayCluster
    application: str
    deployment: str
    target: int
    most_running: int | None = None
    """``None``: all may go (or none does)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmitEvent:
    """Tell people by an Event."""

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
class Plan:
    """What to do now, in order, and when to look again if nothing is heard before."""

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
    # `add` replaces what is there, and works where KubeRay has dropped an empty `scaleStrategy`.
    return [
        {"op": "replace", "path": f"{group}/replicas", "value": replicas},
        {
            "op": "add",
            "path": f"{group}/scaleStrategy",
            "value": {"workersToDelete": list(workers_to_delete)},
        },
    ]
