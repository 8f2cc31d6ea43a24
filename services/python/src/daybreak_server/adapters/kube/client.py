"""Implements the port :class:`~daybreak_server.ports.cluster.Cluster` with the Kubernetes API.

``observe`` reads the watch cache. All other reads go to the API server.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from daybreak_server.adapters.kube import parse, refusal_causes
from daybreak_server.adapters.kube.cache import Cache
from daybreak_server.ports.cluster import (
    API_GROUP,
    API_VERSION,
    POOL_LABEL,
    ClusterConflictError,
    ClusterError,
    ClusterRefusedError,
    ClusterUnavailableError,
    ClusterView,
    Pod,
    RayCluster,
)

RAY = ("ray.io", "v1")
POOLS = (API_GROUP, API_VERSION)
JSON_PATCH = "application/json-patch+json"
TIMEOUT_S = 10.0
SYNC_S = 300.0
"""How often full lists correct the watch cache."""
PAGE = 250
"""Objects in one page of a list."""
DISCOVERY_S = 30.0
"""How often full lists are read while KubeRay is not installed, so that its installation is soon noticed."""
AUTH_DATA_KEY = "auth_token"
COMPONENT = "daybreak-operator"


class KubeCluster:
    """The RayClusters and pools of one namespace. Each call occupies a thread while it runs.

    Each method may raise :class:`~daybreak_server.ports.cluster.ClusterError`.
    """

    def __init__(
        self,
        api: client.ApiClient,
        *,
        namespace: str,
        cache: Cache,
        on_kuberay: Callable[[], None] = lambda: None,
        on_call: Callable[[str], None] = lambda _method: None,
    ) -> None:
        """:param on_kuberay: Called when KubeRay has been installed after the start, so that its kinds can be watched.
        :param on_call: Called with the name of each API call.
        """
        self._custom = client.CustomObjectsApi(api)
        self._core = client.CoreV1Api(api)
        self._namespace, self._cache = namespace, cache
        self._on_kuberay, self._on_call = on_kuberay, on_call
        self._kuberay: bool | None = None
        self._synced: float | None = None
        self._syncing = asyncio.Lock()
        self._tokens: dict[tuple[str, str], str] = {}

    async def discover_kuberay(self) -> None:
        """Check whether KubeRay is installed. Call this before the watches start.

        If KubeRay is installed later, :meth:`observe` notices this with the next full list, and calls ``on_kuberay``.
        If KubeRay is installed after this check but before the watches start, ``on_kuberay`` is called too. That
        call is not needed, but does no harm.
        """
        list_objects = self._custom.list_namespaced_custom_object
        try:
            await self._call(
                list_objects, *RAY, self._namespace, "rayclusters", limit=1, _preload_content=False
            )
            self._kuberay = True
        except _AbsentError:
            self._kuberay = False

    async def observe(self, pool: str) -> ClusterView:
        """The pool's view from the watch cache. Full lists fill the cache at the first call, and correct it later."""
        async with self._syncing:
            every = SYNC_S if self._kuberay else DISCOVERY_S
            if self._synced is None or time.monotonic() - self._synced >= every:
                await self._sync()
        return self._cache.view(pool, kuberay=bool(self._kuberay))

    async def _sync(self) -> None:
        began = time.monotonic()
        list_objects, namespace = self._custom.list_namespaced_custom_object, self._namespace
        async for page in self._pages(list_objects, *POOLS, namespace, "generatorpools"):
            self._cache.listed("pools", page, began=began)
        kuberay = True
        try:
            async for page in self._pages(list_objects, *RAY, namespace, "rayclusters"):
                self._cache.listed("clusters", page, began=began)
        except _AbsentError:
            kuberay = False
        async for page in self._pages(self._core.list_namespaced_pod, namespace, label_selector=POOL_LABEL):
            self._cache.listed("pods", page, began=began)
        self._cache.sweep(began=began)
        before, self._kuberay, self._synced = self._kuberay, kuberay, time.monotonic()
        if kuberay and before is False:
            self._on_kuberay()

    async def read(self, cluster: str) -> tuple[RayCluster | None, tuple[Pod, ...]]:
        """A RayCluster and its pods, read from the API server."""
        try:
            body = await self._call(self._custom.get_namespaced_custom_object, *self._ray(cluster))
        except _AbsentError:
            return None, ()
        selector = f"{parse.CLUSTER_LABEL}={cluster}"
        pages = self._pages(self._core.list_namespaced_pod, self._namespace, label_selector=selector)
        return parse.ray_cluster(body), tuple([parse.pod(pod) async for page in pages for pod in page])

    async def create(self, manifest: Mapping[str, Any]) -> None:
        """Create a RayCluster."""
        create = self._custom.create_namespaced_custom_object
        try:
            await self._call(create, *RAY, self._namespace, "rayclusters", dict(manifest))
        except ClusterConflictError:
            self._synced = None  # the cache lacks this RayCluster, or KubeRay was removed
            raise

    async def patch(self, cluster: str, operations: Sequence[Mapping[str, Any]]) -> None:
        """Apply a JSON Patch to a RayCluster. The API server answers 422 when a ``test`` operation fails."""
        body = [dict(operation) for operation in operations]
        patch = self._custom.patch_namespaced_custom_object
        await self._call(patch, *self._ray(cluster), body, _content_type=JSON_PATCH)

    async def delete(self, cluster: str, *, uid: str, resource_version: str) -> None:
        """Delete a RayCluster if its uid and resource version still match."""
        preconditions = client.V1Preconditions(uid=uid, resource_version=resource_version)
        options = client.V1DeleteOptions(preconditions=preconditions, propagation_policy="Background")
        delete = self._custom.delete_namespaced_custom_object
        await self._call(delete, *self._ray(cluster), body=options)

    async def write_status(self, pool: str, *, uid: str, status: Mapping[str, Any]) -> None:
        """Replace the status of a GeneratorPool if its uid still matches."""
        body = [
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "add", "path": "/status", "value": dict(status)},
        ]
        patch = self._custom.patch_namespaced_custom_object_status
        where = (*POOLS, self._namespace, "generatorpools", pool)
        await self._call(patch, *where, body, _content_type=JSON_PATCH)

    async def emit(self, pool: str, *, uid: str, kind: str, reason: str, message: str) -> None:
        """Record an Event. For each pool and reason there is one Event object, which counts its repetitions."""
        about = {"apiVersion": "/".join(POOLS), "kind": "GeneratorPool", "name": pool, "uid": uid}
        about["namespace"] = self._namespace
        name = f"{pool}.{hashlib.sha256(f'{uid}{reason}'.encode()).hexdigest()[:16]}"
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        event = {
            "metadata": {"name": name, "namespace": self._namespace},
            "involvedObject": about,
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "source": {"component": COMPONENT},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._call(self._core.create_namespaced_event, self._namespace, event)
        except ClusterConflictError:
            stored = await self._call(self._core.read_namespaced_event, name, self._namespace)
            changes = {"message": event["message"], "lastTimestamp": now, "count": (stored.count or 1) + 1}
            await self._call(self._core.patch_namespaced_event, name, self._namespace, changes)

    async def ready(self) -> None:
        """Check that GeneratorPools can be read. :raises ClusterError: when they cannot, with the cause."""
        try:
            list_objects = self._custom.list_namespaced_custom_object
            await self._call(
                list_objects, *POOLS, self._namespace, "generatorpools", limit=1, _preload_content=False
            )
        except _AbsentError as exc:
            raise ClusterRefusedError(
                "Kubernetes does not know GeneratorPools; install the CRD (deploy/helm/daybreak/crds)"
            ) from exc

    async def pool(self, name: str) -> Mapping[str, Any] | None:
        """A GeneratorPool, read from the API server, because a new operator needs its current state."""
        where = (*POOLS, self._namespace, "generatorpools", name)
        try:
            found: Mapping[str, Any] = await self._call(self._custom.get_namespaced_custom_object, *where)
        except _AbsentError:
            return None
        return found

    async def token(self, cluster: RayCluster, *, refresh: bool = False) -> str | None:
        """The token that the RayCluster's head requires; ``None`` if it requires none.

        It comes from the Secret that the spec names. The Secret is read once, and again if ``refresh`` is set.

        :raises ClusterUnavailableError: if the Secret does not exist yet.
        :raises ClusterRefusedError: if the Secret has no token.
        """
        name = cluster.auth_secret
        if name is None:
            return None
        key = (cluster.uid, name)
        if refresh or key not in self._tokens:
            try:
                secret = await self._call(self._core.read_namespaced_secret, name, self._namespace)
                self._tokens[key] = base64.b64decode((secret.data or {})[AUTH_DATA_KEY]).decode().strip()
            except _AbsentError as exc:
                raise ClusterUnavailableError(
                    f"the Secret {name} with the Ray token does not exist yet"
                ) from exc
            except KeyError as exc:
                raise ClusterRefusedError(f"the Secret {name} has no key {AUTH_DATA_KEY}") from exc
        return self._tokens[key]

    async def _pages(
        self, method: Callable[..., Any], *args: Any, **options: Any
    ) -> AsyncIterator[list[Mapping[str, Any]]]:
        """The pages of a list call, as plain JSON.

        Building the client's types would be slow for thousands of objects. Holding all pages at once would take too
        much memory.
        """
        next_page: dict[str, str] = {}
        while True:
            found = await self._call(
                method, *args, _preload_content=False, limit=PAGE, **next_page, **options
            )
            page = json.loads(found)
            yield page["items"]
            token = page["metadata"].get("continue")
            if not token:
                return
            next_page = {"_continue": token}

    def _ray(self, cluster: str) -> tuple[str, str, str, str, str]:
        return (*RAY, self._namespace, "rayclusters", cluster)

    async def _call(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Make one request in a thread. :raises ClusterError: the port's error for what went wrong."""
        self._on_call(method.__name__)
        try:
            return await asyncio.to_thread(_request, method, *args, **options)
        except ApiException as exc:
            raise _translated(exc) from exc
        except (HTTPError, OSError) as exc:
            raise ClusterUnavailableError(f"the Kubernetes API cannot be reached: {exc}") from exc


def _request(method: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """Make the request and read the whole response.

    With ``_preload_content=False``, the body arrives only when it is read. This function reads it in the thread of the
    request, because a read in the event loop would block the loop.
    """
    found = method(*args, _request_timeout=TIMEOUT_S, **options)
    return found if options.get("_preload_content", True) else found.data


class _AbsentError(ClusterConflictError):
    """The object does not exist. A caller that wanted to change it must observe again."""


def _is_failed_test(exc: ApiException) -> bool:
    """Whether a ``test`` of a JSON Patch failed. Unlike the error for an invalid object, this error names no fields."""
    try:
        details = json.loads(exc.body or "{}").get("details") or {}
    except (ValueError, AttributeError):
        return False
    return not details.get("causes")


def _translated(exc: ApiException) -> ClusterError:
    answer = f"Kubernetes answered {exc.status} {exc.reason}: {str(exc.body or '')[:400]}"
    if exc.status == 404:
        return _AbsentError(answer)
    refused = refusal_causes.known(answer) is not None
    if exc.status == 409 or (exc.status == 422 and not refused and _is_failed_test(exc)):
        return ClusterConflictError(answer)
    if exc.status in {400, 401, 403, 422}:
        return ClusterRefusedError(answer, cause=refusal_causes.refusal(answer))
    return ClusterUnavailableError(answer)
