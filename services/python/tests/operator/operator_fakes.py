"""The operator's ports, implemented over a simulated world."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from operator_world import POOL, UID, App, World

from daybreak_server.adapters.kube import parse
from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.pools import PoolReport, PoolView
from daybreak_server.operator.crd.resource import rfc3339
from daybreak_server.ports.cluster import (
    ClusterConflictError,
    ClusterRefusedError,
    ClusterUnavailableError,
    Pod,
    RayCluster,
)


@dataclass(slots=True)
class FakePorts:
    """The ports Cluster, Serve and GroupStore, implemented over one simulated world."""

    world: World
    api_up: bool = True
    refuses: str = ""
    """The reason for which Kubernetes refuses new RayClusters. Empty: it accepts them."""
    emitted: list[tuple[str, str]] = field(default_factory=list)
    """The kind and the reason of each Event."""

    async def read(self, cluster: str) -> tuple[RayCluster | None, tuple[Pod, ...]]:
        """Read a RayCluster and its pods."""
        body = self.world.clusters.get(cluster)
        pods = tuple(pod for pod in self.world.pods.values() if pod.cluster == cluster)
        return (None if body is None else parse.ray_cluster(body)), pods

    async def create(self, manifest: Mapping[str, Any]) -> None:
        """Create a RayCluster."""
        if not self.api_up:
            raise ClusterUnavailableError("the API server is away")
        if self.refuses:
            raise ClusterRefusedError(self.refuses)
        name = manifest["metadata"]["name"]
        if name in self.world.clusters:
            raise ClusterConflictError(f"{name} exists")
        body = copy.deepcopy(dict(manifest))
        body["metadata"] |= {
            "uid": f"uid-{self.world._new('c')}",
            "creationTimestamp": rfc3339(self.world.now),
        }
        self.world.clusters[name] = body
        self.world.bump(name)

    async def patch(self, cluster: str, operations: Sequence[Mapping[str, Any]]) -> None:
        """Apply a JSON Patch to a RayCluster."""
        body = self.world.clusters.get(cluster)
        if body is None:
            raise ClusterConflictError(f"{cluster} is gone")
        changed = apply_patch(body, operations)
        self.world.writers += [
            str(operation["path"]) for operation in operations if operation["op"] != "test"
        ]
        self.world.clusters[cluster] = changed
        self.world.bump(cluster)

    async def delete(self, cluster: str, *, uid: str, resource_version: str) -> None:
        """Delete a RayCluster if uid and version match."""
        meta = self.world.clusters.get(cluster, {}).get("metadata", {})
        if (meta.get("uid"), meta.get("resourceVersion")) != (uid, resource_version):
            raise ClusterConflictError(f"{cluster} has changed")
        del self.world.clusters[cluster]

    async def write_status(self, pool: str, *, uid: str, status: Mapping[str, Any]) -> None:
        """Write the pool's status."""
        assert (pool, uid) == (POOL, UID)
        self.world.status = copy.deepcopy(dict(status))

    async def emit(self, pool: str, *, uid: str, kind: str, reason: str, message: str) -> None:
        """Record an Event."""
        self.emitted.append((kind, reason))

    async def put(self, cluster: RayCluster, config: Mapping[str, Any]) -> None:
        """Deploy the applications of Serve. A new deploy attempt stops all gangs."""
        if self.world.serve(cluster.name) is None:
            raise ClusterUnavailableError("the head does not answer")
        args = next(app["args"] for app in config["applications"] if app["name"] == POOL)
        app = self.world.apps.get(cluster.name)
        if app is not None and app.attempt == args["attempt"]:
            return
        for gang in self.world.alive(cluster.name):
            self.world._check_may_stop(gang, "the application was redeployed")
            self.world._stop(gang, graceful=False)
        ranks = parse.ray_cluster(self.world.clusters[cluster.name]).ranks
        self.world.apps[cluster.name] = App(attempt=args["attempt"], target=ranks * args["groups"])

    async def scale(self, cluster: RayCluster, *, application: str, deployment: str, target: int) -> None:
        """Set how many ranks Serve runs."""
        app = self.world.apps.get(cluster.name)
        if app is None or self.world.serve(cluster.name) is None:
            raise ClusterUnavailableError("the head does not answer")
        assert (application, deployment) == (POOL, "VideoGenerator")
        assert target % cluster.ranks == 0, "Serve would never apply this target"
        app.target = target

    async def observe(self, target: Any, *, application: str | None = None) -> Any:
        """Observe a pool in Kubernetes, or an application in Serve if one is named."""
        if application is None:
            return self.world.view()
        view = self.world.serve(target.name)
        if view is None:
            raise ClusterUnavailableError("the head does not answer")
        return view

    async def pool(self, name: str) -> PoolView:
        """The pool in Redis."""
        self.world.require_store()
        return self.world.store()

    async def cordon_hosts(self, pool: str, hosts: Sequence[str], *, cordoned: bool = True) -> None:
        """Cordon or uncordon hosts."""
        self.world.require_store()
        self.world.cordoned = (
            self.world.cordoned | set(hosts) if cordoned else self.world.cordoned - set(hosts)
        )

    async def publish_report(self, pool: str, report: PoolReport, *, ttl_s: float) -> None:
        """Publish the report that clients see."""
        self.world.require_store()
        self.world.report = report

    async def drain(self, pool: str, group_id: GroupId, *, on: bool = True) -> bool:
        """Set or remove the drain mark of a group."""
        self.world.require_store()
        if group_id not in self.world.gangs:
            return False
        if on:
            self.world.drains.setdefault(group_id, self.world.now)
        else:
            self.world.drains.pop(group_id, None)
        return True


def apply_patch(body: Mapping[str, Any], operations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Apply a JSON Patch whose operations are ``test``, ``replace`` or ``add``.

    :raises ClusterConflictError: if a ``test`` fails.
    """
    changed: dict[str, Any] = copy.deepcopy(dict(body))
    for operation in operations:
        *path, last = [
            int(part) if part.isdigit() else part for part in str(operation["path"]).split("/")[1:]
        ]
        node: Any = changed
        for part in path:
            node = node[part]
        if operation["op"] == "test":
            if node.get(last) != operation["value"]:
                raise ClusterConflictError(
                    f"{operation['path']} is {node.get(last)}, not {operation['value']}"
                )
        else:
            node[last] = copy.deepcopy(operation["value"])
    return changed
