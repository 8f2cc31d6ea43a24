"""What a pool's groups run on: its RayClusters, their pods and their Serve applications.

``Cluster`` is the Kubernetes API and ``ServeApi`` the REST API of a RayCluster's head. Times are seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from daybreak_server.domain.causes import Cause, Reason

API_GROUP, API_VERSION = "daybreak.dev", "v1alpha1"
"""Of the custom resource ``GeneratorPool``. The labels have the group as their prefix."""
POOL_LABEL = f"{API_GROUP}/pool"
"""Set on the RayClusters that the operator creates for a pool, and on their pods."""
REVISION_LABEL = f"{API_GROUP}/revision"
RANKS_ANNOTATION = f"{API_GROUP}/ranks"


class ClusterError(Exception):
    """Base class of the errors of ``Cluster`` and ``ServeApi``.

    ``ClusterError``
      ├── ``ClusterUnavailableError``  cannot be reached, timed out or answered 5xx: temporary
      ├── ``ClusterConflictError``     the object has changed since it was read: observe and decide again
      └── ``ClusterRefusedError``      forbidden, invalid, over quota, unknown kind: lasts until someone fixes it
    """


class ClusterUnavailableError(ClusterError):
    """The API cannot be reached at the moment."""


class ClusterConflictError(ClusterError):
    """The object, or something that the call depends on, has changed since it was read."""


class ClusterRefusedError(ClusterError):
    """The API refuses the request and will refuse it again. ``cause`` says why."""

    def __init__(self, message: str, *, cause: Cause | None = None) -> None:
        super().__init__(message)
        self.cause = cause or Cause(reason=Reason.RAYCLUSTER_REFUSED, message=message)


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingReason:
    """Why a pod does not run yet: Kubernetes' reason (``ImagePullBackOff``, ``Unschedulable``) and message."""

    reason: str
    message: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pod:
    """A pod of a RayCluster."""

    name: str
    cluster: str
    head: bool = False
    replica: str = ""
    """KubeRay's name for the worker replica to which this host belongs; the pod's name if a replica has one host."""
    running: bool = False
    """Whether all containers of the pod run. The pod need not be ready."""
    ready: bool = False
    terminating: bool = False
    ends_at: float | None = None
    """When the grace period of a terminating pod ends. If its node is alive, the pod is gone by then."""
    created_at: float = 0.0
    scheduled_at: float | None = None
    running_at: float | None = None
    waiting: WaitingReason | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RayCluster:
    """A RayCluster as it was last read. ``replicas`` counts worker replicas, each of ``hosts`` pods."""

    name: str
    uid: str
    resource_version: str
    owner: str = ""
    """The uid of the GeneratorPool that owns the cluster."""
    revision: str = ""
    """The revision of the template that the cluster was created from."""
    ranks: int = 1
    """The number of ranks in each group."""
    created_at: float = 0.0
    worker_group: str = ""
    index: int = 0
    """The position of the worker group in the spec's list."""
    replicas: int = 0
    hosts: int = 1
    workers_to_delete: tuple[str, ...] = ()
    suspend: bool = False
    suspended: bool = False
    """Whether the cluster is suspended and all its pods are gone."""
    deleting: bool = False
    head_service: str | None = None
    auth_secret: str | None = None
    """The Secret that holds the token that the head requires; ``None`` if the head requires none."""
    problem: Cause | None = None
    """What went wrong according to KubeRay, such as a pod that it is forbidden to create, or a spec that it refuses."""
    acknowledged: bool = True
    """Whether KubeRay has observed the number of workers in the latest spec, and repeats this number in the status."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeView:
    """The pool's Serve application on one head."""

    status: str | None = None
    """Serve's status (``DEPLOYING``, ``RUNNING``, ``UNHEALTHY``, ``DEPLOY_FAILED``, …); ``None``: not deployed."""
    message: str = ""
    attempt: int | None = None
    """The argument ``attempt`` that the application was deployed with."""
    built: bool = True
    """Whether Serve has built the application. Until then it has no deployment that can be scaled."""
    target: int = 0
    """The number of ranks that Serve is asked to run."""
    running: int = 0
    """The number of ranks that run and are not stopping."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KubeWarning:
    """A warning that Kubernetes recorded about one of the pool's objects."""

    reason: str
    message: str
    about: str
    at: float
    cause: Cause | None = None
    """The cause that the warning indicates, if known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterView:
    """What Kubernetes last reported about one pool. The view may lag behind the cluster."""

    kuberay: bool = True
    """Whether KubeRay's RayCluster kind is installed."""
    clusters: tuple[RayCluster, ...] = ()
    pods: tuple[Pod, ...] = ()
    warnings: tuple[KubeWarning, ...] = ()


class Cluster(Protocol):
    """The Kubernetes API, in one namespace. All methods raise :class:`ClusterError`."""

    async def observe(self, pool: str) -> ClusterView:
        """The RayClusters, pods and warnings of a pool, from the watch cache."""

    async def read(self, cluster: str) -> tuple[RayCluster | None, tuple[Pod, ...]]:
        """A RayCluster and its pods, read from the API server, not from the watch cache."""

    async def create(self, manifest: Mapping[str, Any]) -> None:
        """Create a RayCluster. :raises ClusterConflictError: when the name is taken."""

    async def patch(self, cluster: str, operations: Sequence[Mapping[str, Any]]) -> None:
        """Apply a JSON Patch to a RayCluster. :raises ClusterConflictError: when a ``test`` operation fails."""

    async def delete(self, cluster: str, *, uid: str, resource_version: str) -> None:
        """Delete a RayCluster if its uid and resource version still match."""

    async def write_status(self, pool: str, *, uid: str, status: Mapping[str, Any]) -> None:
        """Replace the status of a GeneratorPool."""

    async def emit(self, pool: str, *, uid: str, kind: str, reason: str, message: str) -> None:
        """Record an Event about a GeneratorPool. For each pool and reason there is one Event, with a count."""


class ServeApi(Protocol):
    """The REST API of Ray Serve on a RayCluster's head. All methods raise :class:`ClusterError`."""

    async def observe(self, cluster: RayCluster, *, application: str) -> ServeView:
        """The state of one application."""

    async def put(self, cluster: RayCluster, config: Mapping[str, Any]) -> None:
        """Deploy the applications of ``config``, and delete all others. Idempotent."""

    async def scale(self, cluster: RayCluster, *, application: str, deployment: str, target: int) -> None:
        """Set the number of ranks."""
