"""Ray Serve's REST API on a RayCluster's head: deploy the applications, read their state, scale a deployment.

The dashboard serves it on port 8265. With token authentication every call needs the cluster's token. If Ray refuses the
token, it is looked up again once, because KubeRay may have replaced it.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from http.client import HTTPException
from typing import Any, Protocol
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

from daybreak_server.ports.cluster import (
    ClusterRefusedError,
    ClusterUnavailableError,
    RayCluster,
    ServeView,
)

PORT = 8265
_RUNNING = "RUNNING"

Address = Callable[[RayCluster], str]
"""Returns ``http://host:port`` of a RayCluster's dashboard."""


class TokenSource(Protocol):
    """Finds the token of a RayCluster; ``None`` if it needs none."""

    async def __call__(self, cluster: RayCluster, *, refresh: bool = False) -> str | None:
        """Return the token. With ``refresh``, look it up again, because Ray refuses the earlier one."""


class TokenRefusedError(ClusterRefusedError):
    """Ray refuses the cluster's token."""


def in_namespace(namespace: str) -> Address:
    """Return a function that returns the address at which pods of the Kubernetes cluster reach a RayCluster's head.

    The address is that of the head service. The function raises :class:`ClusterUnavailableError` until KubeRay has
    created this service.
    """

    def address(cluster: RayCluster) -> str:
        if cluster.head_service is None:
            raise ClusterUnavailableError(f"{cluster.name} has no head service yet")
        return f"http://{cluster.head_service}.{namespace}.svc:{PORT}"

    return address


class ServeRest:
    """:class:`~daybreak_server.ports.cluster.ServeApi` over HTTP. Each call occupies a thread while it runs."""

    def __init__(
        self, *, address: Address, token: TokenSource, timeout_s: float = 5.0, put_timeout_s: float = 60.0
    ):
        self._address, self._token = address, token
        self._timeout_s, self._put_timeout_s = timeout_s, put_timeout_s

    async def observe(self, cluster: RayCluster, *, application: str) -> ServeView:
        """Return the application's state; its ``status`` is ``None`` if there is no such application.

        :raises ClusterError: if Serve cannot be reached, refuses the token, or answers with something else.
        """
        text = await self._call(cluster, "GET", "/api/serve/applications/", timeout_s=self._timeout_s)
        try:
            return view(json.loads(text), application=application)
        except (ValueError, KeyError, TypeError) as exc:
            raise ClusterUnavailableError(
                f"Serve on {cluster.name} answered with something other than its applications: {text[:200]!r}"
            ) from exc

    async def put(self, cluster: RayCluster, config: Mapping[str, Any]) -> None:
        """Deploy all applications. This may take long, because it starts Serve's controller."""
        await self._call(
            cluster, "PUT", "/api/serve/applications/", body=config, timeout_s=self._put_timeout_s
        )

    async def scale(self, cluster: RayCluster, *, application: str, deployment: str, target: int) -> None:
        """Set the number of ranks. It must be a multiple of the gang's size, or Serve never applies it."""
        path = f"/api/v1/applications/{quote(application)}/deployments/{quote(deployment)}/scale"
        body = {"target_num_replicas": target}
        await self._call(cluster, "POST", path, body=body, timeout_s=self._timeout_s)

    async def _call(
        self,
        cluster: RayCluster,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        timeout_s: float,
    ) -> str:
        headers = {"Accept": "application/json", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        url = self._address(cluster) + path
        request = Request(url, data=data, headers=headers, method=method)  # noqa: S310 - an http URL that we build
        token = await self._token(cluster)
        try:
            return await asyncio.to_thread(_send, _authorized(request, token), timeout_s)
        except TokenRefusedError:
            renewed = await self._token(cluster, refresh=True)
            if renewed == token:
                raise
            return await asyncio.to_thread(_send, _authorized(request, renewed), timeout_s)


def view(details: Mapping[str, Any], *, application: str) -> ServeView:
    """Return an application's state from the response to ``GET /api/serve/applications/``.

    A rank that Serve moves away because its node drains does not count as running.
    """
    app = details["applications"].get(application)
    if app is None:
        return ServeView()
    deployments = list(app["deployments"].values())
    messages = [app.get("message", ""), *(deployment.get("message", "") for deployment in deployments)]
    args = (app.get("deployed_app_config") or {}).get("args") or {}
    return ServeView(
        status=str(app["status"]),
        message=next((message for message in messages if message), ""),
        attempt=int(args["attempt"]) if "attempt" in args else None,
        built=bool(deployments),
        target=sum(int(deployment["target_num_replicas"]) for deployment in deployments),
        running=sum(
            replica["state"] == _RUNNING for deployment in deployments for replica in deployment["replicas"]
        ),
    )


def _authorized(request: Request, token: str | None) -> Request:
    if token:
        request.add_header("Authorization", f"Bearer {token}")
    return request


def _send(request: Request, timeout_s: float) -> str:
    try:
        with urlopen(request, timeout=timeout_s) as response:  # noqa: S310
            return str(response.read().decode())
    except HTTPError as exc:
        body = exc.read(2000).decode(errors="replace").strip()
        message = f"{request.get_method()} {request.full_url}: {exc.code} {body[:400]}"
        if exc.code in {401, 403}:
            raise TokenRefusedError(f"Ray refuses the token: {message}") from exc
        if exc.code in {400, 404, 412}:
            raise ClusterRefusedError(message) from exc
        raise ClusterUnavailableError(message) from exc
    except (URLError, HTTPException, OSError) as exc:
        raise ClusterUnavailableError(f"{request.get_method()} {request.full_url}: {exc}") from exc
