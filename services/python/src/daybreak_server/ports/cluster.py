"""Where a pool's groups run: its RayClusters, their pods and their Serve applications, and how they change.

Three narrow faces. ``Cluster`` is the Kubernetes API, ``Serve`` the REST API of a RayCluster's head, and
``GroupStore`` what the operator asks of the task store. Times are seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from daybreak_server.domain.causes import Cause, Reason

POOL_LABEL = "daybreak.dev/pool"
"""On every object that is made for a pool."""
REVISION_LABEL = "daybreak.dev/revision"
RANKS_ANNOTATION = "daybreak.dev/ranks"


class ClusterError(Exception):
    """Base of what the cluster's faces raise.

    ``ClusterError``
      ├── ``ClusterUnavailableError``  cannot be reached, timed out, answered 5xx: temporary
      ├── ``ClusterConflictError``     the object is not as it was read: look again, then decide again
      └── ``ClusterRefusedError``      forbidden, not valid, over quota, no such kind: until somebody mends it
    """


class ClusterUnavailableError(ClusterError):
    """It cannot be reached for now."""


class ClusterConflictError(ClusterError):
    """The object is not as it was read."""


class ClusterRefusedError(ClusterError):
    """It refuses, and will again. ``cause`` says why."""

    def __init__(self, message: str, *, cause: Cause | None = None) -> None:
        super().__init__(message)
        self.cause = cause or Cause(reason=Reason.RAYCLUSTER_REFUSED, message=message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """Why a pod does not run yet: Kubernetes' reason (``ImagePullBackOff``, ``Unschedulable``) and its words."""

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod of a RayCluster."""

    name: str
    cluster: str
    head: bool = False
    replica: str = ""
    """KubeRay's name of the worker replica that it is a host of; its own name where a replica has one host."""
    running: bool = False
    """Its containers run (ready or not)."""
    ready: bool = False
    terminating: bool = False
    ends_at: float | None = None
    """When the grace of one that terminates is over: where its node lives, it is gone by then."""
    created_at: float = 0.0
    scheduled_at: float | None = None
    running_at: float | None = None
    waiting: Waiting | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RayCluster:
    """A RayCluster as it was last read. ``replicas`` counts groups of hosts, each of ``hosts`` pods."""

    name: str
    uid: str
    resource_version: str
    owner: str = ""
    """The uid of the GeneratorPool that made it."""
    revision: str = ""
    """Of the template that it was made from."""
    ranks: int = 1
    """Of each of its groups."""
    created_at: float = 0.0
    worker_group: str = ""
    index: int = 0
    """Of the worker group in its list."""
    replicas: int = 0
    hosts: int = 1
    workers_to_delete: tuple[str, ...] = ()
    suspend: bool = False
    suspended: bool = False
    """Whether all of its pods are gone because it is suspended."""
    deleting: bool = False
    head_service: str | None = None
    auth_secret: str | None = None
    """The Secret with the token that its head asks for; ``None``: it asks for none."""
    problem: Cause | None = None
    """What KubeRay says went wrong: a pod that it may not create, a spec that it refuses."""
    heard: bool = True
    """Whether KubeRay speaks of as many workers as are asked for, so it has seen what was written last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeView:
    """The pool's Serve application on one head."""

    status: str | None = None
    """Serve's: ``DEPLOYING``, ``RUNNING``, ``UNHEALTHY``, ``DEPLOY_FAILED``, … ; ``None``: there is none."""
    message: str = ""
    attempt: int | None = None
    """The ``attempt`` among the arguments that it was deployed with."""
    target: int = 0
    """Ranks that Serve wants to run."""
    running: int = 0
    """Ranks that run and are not about to leave."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """A warning that Kubernetes recorded about one of the pool's objects."""

    reason: str
    message: str
    about: str
    at: float
    cause: Cause | None = None
    """What it tells of, where that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterView:
    """What Kubernetes has for one pool, as last heard (it may lag)."""

    kuberay: bool = True
    """Whether the cluster knows RayClusters at all."""
    clusters: tuple[RayCluster, ...] = ()
    pods: tuple[Pod, ...] = ()
    warnings: tuple[Warned, ...] = ()


class Cluster(Protocol):
    """The Kubernetes API, in one namespace. All methods raise :class:`ClusterError`."""

    async def look(self, pool: str) -> ClusterView:
        """What there is for a pool."""

    async def fresh(self, cluster: str) -> tuple[RayCluster | None, tuple[Pod, ...]]:
        """A RayCluster and its pods as they are now, from the API server itself."""

    async def create(self, manifest: Mapping[str, Any]) -> None:
        """Create a RayCluster. One of that name already: :class:`ClusterConflictError`."""

    async def patch(self, cluster: str, operations: Sequence[Mapping[str, Any]]) -> None:
        """Apply a JSON Patch to a RayCluster; a failed ``test`` is a :class:`ClusterConflictError`."""

    async def delete(self, cluster: str, *, uid: str, resource_version: str) -> None:
        """Delete a RayCluster if it is still that one."""

    async def write_status(self, pool: str, *, uid: str, status: Mapping[str, Any]) -> None:
        """Replace the status of a GeneratorPool."""

    async def emit(self, pool: str, *, uid: str, kind: str, reason: str, message: str) -> None:
        """Record an Event about a GeneratorPool; the same again only raises its count."""


class Serve(Protocol):
    """The REST API of Ray Serve on a RayCluster's head. All methods raise :class:`ClusterError`."""

    async def look(self, cluster: RayCluster, *, application: str) -> ServeView:
        """The application's state."""

    async def put(self, cluster: RayCluster, config: Mapping[str, Any]) -> None:
        """Put the applications; those that are not named go. The same again changes nothing."""

    async def scale(self, cluster: RayCluster, *, application: str, deployment: str, target: int) -> None:
        """Set how many ranks run."""
