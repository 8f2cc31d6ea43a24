"""What the API server has told so far, by pool: fed by watches, read by looks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daybreak_server.adapters.kube import views
from daybreak_server.ports.cluster import POOL_LABEL, ClusterView, Pod, RayCluster, Warned

KEPT_WARNINGS = 20


class Cache:
    """The newest known body of each object. One thread (the event loop's) writes and reads it."""

    def __init__(self) -> None:
        self.pools: dict[str, Mapping[str, Any]] = {}
        self._clusters: dict[str, tuple[str, RayCluster]] = {}
        self._pods: dict[str, tuple[str, Pod]] = {}
        self._warnings: dict[str, list[Warned]] = {}

    def pool(self, body: Mapping[str, Any], *, gone: bool) -> str:
        """A GeneratorPool came, changed or went; its name."""
        name = str(body["metadata"]["name"])
        if gone:
            self.pools.pop(name, None)
            self._warnings.pop(name, None)
        else:
            self.pools[name] = body
        return name

    def cluster(self, body: Mapping[str, Any], *, gone: bool) -> str | None:
        """A RayCluster; the pool that it belongs to."""
        return self._keep(self._clusters, body, None if gone else views.ray_cluster(body))

    def pod(self, body: Mapping[str, Any], *, gone: bool) -> str | None:
        """A pod; the pool that it belongs to."""
        return self._keep(self._pods, body, None if gone else views.pod(body))

    def warning(self, body: Mapping[str, Any]) -> str | None:
        """A warning Event; the pool that it is about, if it is about one."""
        warned = views.warned(body)
        pool = self._pool_of(warned.about)
        if pool is not None:
            kept = [one for one in self._warnings.get(pool, []) if one.message != warned.message]
            self._warnings[pool] = [*kept, warned][-KEPT_WARNINGS:]
        return pool

    def view(self, pool: str, *, kuberay: bool) -> ClusterView:
        """All of it, for one pool."""
        return ClusterView(
            kuberay=kuberay,
            clusters=tuple(one for of, one in self._clusters.values() if of == pool),
            pods=tuple(one for of, one in self._pods.values() if of == pool),
            warnings=tuple(self._warnings.get(pool, ())),
        )

    def _pool_of(self, name: str) -> str | None:
        for known in (self._clusters, self._pods):
            if name in known:
                return known[name][0]
        return None

    @staticmethod
    def _keep(kept: dict[str, Any], body: Mapping[str, Any], value: Any) -> str | None:
        meta = body["metadata"]
        pool = (meta.get("labels") or {}).get(POOL_LABEL)
        if value is None or pool is None:
            kept.pop(meta["name"], None)
        else:
            kept[meta["name"]] = (pool, value)
        return pool if pool is None else str(pool)
