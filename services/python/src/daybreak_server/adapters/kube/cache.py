"""What the API server has told so far, by pool: fed by watches, set right by lists, read by looks."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from daybreak_server.adapters.kube import views
from daybreak_server.ports.cluster import POOL_LABEL, ClusterView, Pod, RayCluster, Warned

KEPT_WARNINGS = 5
"""Of one object."""
KEPT_OBJECTS = 500
"""With warnings; whatever else lives in the namespace, this does not grow."""
Body = Mapping[str, Any]
T = TypeVar("T", RayCluster, Pod)


@dataclass(frozen=True, slots=True)
class _Known(Generic[T]):
    """One object, whose it is, and when it was heard of (monotonic)."""

    pool: str
    value: T
    heard: float


class Cache:
    """The newest known body of each object. One thread (the event loop's) writes and reads it."""

    def __init__(self) -> None:
        self.pools: dict[str, Body] = {}
        self._pools_heard: dict[str, float] = {}
        self._clusters: dict[str, _Known[RayCluster]] = {}
        self._pods: dict[str, _Known[Pod]] = {}
        self._warnings: OrderedDict[str, list[Warned]] = OrderedDict()

    def pool(self, body: Body, *, gone: bool) -> str:
        """A GeneratorPool came, changed or went; its name."""
        name = str(body["metadata"]["name"])
        if gone:
            self.pools.pop(name, None)
        else:
            self.pools[name] = body
            self._pools_heard[name] = time.monotonic()
        return name

    def cluster(self, body: Body, *, gone: bool) -> str | None:
        """A RayCluster; the pool that it belongs to."""
        return _keep(self._clusters, body, None if gone else views.ray_cluster(body))

    def pod(self, body: Body, *, gone: bool) -> str | None:
        """A pod; the pool that it belongs to."""
        return _keep(self._pods, body, None if gone else views.pod(body))

    def warning(self, body: Body) -> str | None:
        """A warning Event; the pool that it is about, as far as that is known by now."""
        warned = views.warned(body)
        kept = [one for one in self._warnings.pop(warned.about, []) if one.message != warned.message]
        self._warnings[warned.about] = [*kept, warned][-KEPT_WARNINGS:]
        while len(self._warnings) > KEPT_OBJECTS:
            self._warnings.popitem(last=False)
        known = self._clusters.get(warned.about) or self._pods.get(warned.about)
        return None if known is None else known.pool

    def sync(
        self, *, pools: Iterable[Body], clusters: Iterable[Body], pods: Iterable[Body], began: float
    ) -> None:
        """All that there is, by lists that were asked for at ``began`` (monotonic).

        A watch that had to begin anew says nothing of what went meanwhile: what is not listed, and was not heard
        of since, is gone.
        """
        for body in pools:
            self.pool(body, gone=False)
        for body in clusters:
            self.cluster(body, gone=False)
        for body in pods:
            self.pod(body, gone=False)
        for name in [name for name in self.pools if self._pools_heard[name] < began]:
            del self.pools[name]
        _drop(self._clusters, began)
        _drop(self._pods, began)

    def view(self, pool: str, *, kuberay: bool) -> ClusterView:
        """All of it, for one pool."""
        clusters = tuple(one.value for one in self._clusters.values() if one.pool == pool)
        pods = tuple(one.value for one in self._pods.values() if one.pool == pool)
        names = {*(one.name for one in clusters), *(one.name for one in pods)}
        warnings = [one for name in names & self._warnings.keys() for one in self._warnings[name]]
        return ClusterView(
            kuberay=kuberay,
            clusters=clusters,
            pods=pods,
            warnings=tuple(sorted(warnings, key=lambda one: (one.at, one.about, one.message))),
        )


def _keep(kept: dict[str, _Known[T]], body: Body, value: T | None) -> str | None:
    meta = body["metadata"]
    pool = (meta.get("labels") or {}).get(POOL_LABEL)
    if value is None or pool is None:
        kept.pop(meta["name"], None)
    else:
        kept[meta["name"]] = _Known(pool=str(pool), value=value, heard=time.monotonic())
    return pool if pool is None else str(pool)


def _drop(kept: dict[str, _Known[T]], before: float) -> None:
    for name in [name for name, one in kept.items() if one.heard < before]:
        del kept[name]
