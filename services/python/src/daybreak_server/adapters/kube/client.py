"""The Kubernetes API as :class:`~daybreak_server.ports.cluster.Cluster`: reads from watches, writes at once."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from kubernetes import client
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from daybreak_server.adapters.kube import views
from daybreak_server.adapters.kube.cache import Cache
from daybreak_server.ports.cluster import (
    ClusterConflictError,
    ClusterError,
    ClusterRefusedError,
    ClusterUnavailableError,
    ClusterView,
    Pod,
    RayCluster,
)

RAY = ("ray.io", "v1")
POOLS = ("daybreak.dev", "v1alpha1")
JSON_PATCH = "application/json-patch+json"
TIMEOUT_S = 10.0
DISCOVERY_S = 30.0
TOKEN_KEY = "auth_token"  # noqa: S105 - the name of a key, by KubeRay's convention
COMPONENT = "daybreak-operator"


class KubeCluster:
    """One namespace. Every call takes a thread for its duration."""

    def __init__(self, api: client.ApiClient, *, namespace: str, cache: Cache) -> None:
        self._custom = client.CustomObjectsApi(api)
        self._core = client.CoreV1Api(api)
        self._namespace, self._cache = namespace, cache
        self._kuberay, self._asked = True, 0.0

    async def look(self, pool: str) -> ClusterView:
        """What the watches have told; whether KubeRay is there is asked anew while nothing of it is seen."""
        view = self._cache.view(pool, kuberay=True)
        if view.clusters:
            return view
        return self._cache.view(pool, kuberay=await self._has_kuberay())

    async def fresh(self, cluster: str) -> tuple[RayCluster | None, tuple[Pod, ...]]:
        """From the API server itself."""
        try:
            body = await self._call(self._custom.get_namespaced_custom_object, *self._ray(cluster))
        except _AbsentError:
            return None, ()
        selector = f"{views.CLUSTER_LABEL}={cluster}"
        found = await self._call(self._core.list_namespaced_pod, self._namespace, label_selector=selector)
        api = self._core.api_client
        pods = tuple(views.pod(api.sanitize_for_serialization(one)) for one in found.items)
        return views.ray_cluster(body), pods

    async def create(self, manifest: Mapping[str, Any]) -> None:
        """Create a RayCluster."""
        await self._call(
            self._custom.create_namespaced_custom_object, *RAY, self._namespace, "rayclusters", dict(manifest)
        )

    async def patch(self, cluster: str, operations: Sequence[Mapping[str, Any]]) -> None:
        """Apply a JSON Patch to a RayCluster. The API server answers 422 where a test fails."""
        body = [dict(one) for one in operations]
        patch = self._custom.patch_namespaced_custom_object
        await self._call(patch, *self._ray(cluster), body, _content_type=JSON_PATCH)

    async def delete(self, cluster: str, *, uid: str, resource_version: str) -> None:
        """Delete it if it is still that one."""
        only = client.V1Preconditions(uid=uid, resource_version=resource_version)
        options = client.V1DeleteOptions(preconditions=only, propagation_policy="Background")
        delete = self._custom.delete_namespaced_custom_object
        await self._call(delete, *self._ray(cluster), body=options)

    async def write_status(self, pool: str, *, uid: str, status: Mapping[str, Any]) -> None:
        """Replace the status of a GeneratorPool, if it is still that one."""
        body = [
            {"op": "test", "path": "/metadata/uid", "value": uid},
            {"op": "add", "path": "/status", "value": dict(status)},
        ]
        patch = self._custom.patch_namespaced_custom_object_status
        where = (*POOLS, self._namespace, "generatorpools", pool)
        await self._call(patch, *where, body, _content_type=JSON_PATCH)

    async def emit(self, pool: str, *, uid: str, kind: str, reason: str, message: str) -> None:
        """An Event; one for each reason, with a count."""
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
            was = await self._call(self._core.read_namespaced_event, name, self._namespace)
            again = {"message": event["message"], "lastTimestamp": now, "count": (was.count or 1) + 1}
            await self._call(self._core.patch_namespaced_event, name, self._namespace, again)

    async def pool(self, name: str) -> Mapping[str, Any] | None:
        """A GeneratorPool from the API server itself, as a successor must read it first."""
        where = (*POOLS, self._namespace, "generatorpools", name)
        try:
            found: Mapping[str, Any] = await self._call(self._custom.get_namespaced_custom_object, *where)
        except _AbsentError:
            return None
        return found

    async def token(self, cluster: RayCluster) -> str | None:
        """The token that its head asks for, from the Secret that its spec names."""
        try:
            body = await self._call(self._custom.get_namespaced_custom_object, *self._ray(cluster.name))
            options = body["spec"].get("authOptions") or {}
            if options.get("mode") != "token":
                return None
            name = options.get("secretName") or cluster.name
            secret = await self._call(self._core.read_namespaced_secret, name, self._namespace)
        except _AbsentError as exc:
            raise ClusterUnavailableError(f"the token of {cluster.name} is not there yet") from exc
        return base64.b64decode((secret.data or {})[TOKEN_KEY]).decode().strip()

    async def _has_kuberay(self) -> bool:
        now = time.monotonic()
        if not self._asked or now - self._asked > DISCOVERY_S:
            ask = client.CustomObjectsApi(self._custom.api_client).get_api_resources
            try:
                found = await self._call(ask, *RAY)
                self._kuberay = any(one.name == "rayclusters" for one in found.resources)
            except _AbsentError:
                self._kuberay = False
            self._asked = now
        return self._kuberay

    def _ray(self, cluster: str) -> tuple[str, str, str, str, str]:
        return (*RAY, self._namespace, "rayclusters", cluster)

    async def _call(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """One request. :raises ClusterError: what went wrong, in the ports' words."""
        try:
            return await asyncio.to_thread(method, *args, _request_timeout=TIMEOUT_S, **options)
        except ApiException as exc:
            raise _translated(exc) from exc
        except (HTTPError, OSError) as exc:
            raise ClusterUnavailableError(f"the Kubernetes API cannot be reached: {exc}") from exc


class _AbsentError(ClusterConflictError):
    """There is no such object: whoever changes it must look again."""


def _translated(exc: ApiException) -> ClusterError:
    said = f"Kubernetes says {exc.status} {exc.reason}: {str(exc.body or '')[:400]}"
    if exc.status == 404:
        return _AbsentError(said)
    if exc.status == 409 or (exc.status == 422 and "jsonpatch" in said.lower().replace(" ", "")):
        return ClusterConflictError(said)
    if exc.status == 422 and "the server rejected our request" in said:
        return ClusterConflictError(said)
    if exc.status in {400, 401, 403, 422}:
        return ClusterRefusedError(said)
    return ClusterUnavailableError(said)
