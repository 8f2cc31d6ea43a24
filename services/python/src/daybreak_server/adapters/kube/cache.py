"""The newest known state of the namespace's objects, by pool.

Watches feed the cache, and :meth:`Cache.view` reads it. A watch that restarts does not report what was deleted while it
was down. So from time to time, a full list of all objects corrects the cache. The list and the watches run at the same
time. Every entry has the time of its arrival, so the list never overwrites what a watch has reported since the list
began. After the last page of the list, :meth:`Cache.sweep` removes the objects that neither the list nor a watch has
reported since the list began.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from daybreak_server.adapters.kube import parse
from daybreak_server.ports.cluster import POOL_LABEL, ClusterView, KubeWarning, Pod, RayCluster

KEPT_WARNINGS = 5
"""The maximum number of warnings that are kept for one object."""
KEPT_OBJECTS = 500
"""The maximum number of objects whose warnings are kept. Without a limit, the cache would grow: it
receives the warnings of all objects of the namespace, including objects that do not belong to Daybreak."""
Body = Mapping[str, Any]
Kind = Literal["pools", "clusters", "pods"]
T = TypeVar("T", RayCluster, Pod)


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    """An object, its pool, and when it was reported (monotonic)."""

    pool: str
    value: T
    reported_at: float


@dataclass(slots=True)
class _Index(Generic[T]):
    """The objects of one kind, by name."""

    known: dict[str, _Entry[T]] = field(default_factory=dict)
    gone: dict[str, float] = field(default_factory=dict)
    """Deleted objects and when their deletion was reported. A list that began earlier may still contain them."""

    def on_watch(self, body: Body, value: T | None) -> str | None:
        """Store the object that a watch reported; ``None`` means that it was deleted. Returns the object's pool."""
        meta, now = body["metadata"], time.monotonic()
        pool = (meta.get("labels") or {}).get(POOL_LABEL)
        if value is None or pool is None:
            self.known.pop(meta["name"], None)
            self.gone[meta["name"]] = now
        else:
            self.known[meta["name"]] = _Entry(pool=str(pool), value=value, reported_at=now)
        return pool if pool is None else str(pool)

    def listed(self, body: Body, value: T, began: float) -> None:
        """Store an object from a list, unless a watch has reported the object since the list began."""
        name = body["metadata"]["name"]
        known = self.known.get(name)
        if self.gone.get(name, began) <= began and (known is None or known.reported_at <= began):
            self.on_watch(body, value)

    def drop(self, began: float) -> None:
        """Remove the objects that have not been reported since ``began``."""
        for name in [name for name, entry in self.known.items() if entry.reported_at < began]:
            del self.known[name]
        self.gone.clear()


class Cache:
    """The newest known state of each object. One thread (the event loop's) writes and reads the cache."""

    def __init__(self) -> None:
        self.pools: dict[str, Body] = {}
        self._pools_reported: dict[str, float] = {}
        """When each pool was last reported; deleted pools stay until the next sweep."""
        self._clusters: _Index[RayCluster] = _Index()
        self._pods: _Index[Pod] = _Index()
        self._warnings: OrderedDict[str, list[KubeWarning]] = OrderedDict()

    def pool(self, body: Body, *, gone: bool) -> str:
        """A GeneratorPool was created, changed or deleted. Returns its name."""
        name = str(body["metadata"]["name"])
        self._pools_reported[name] = time.monotonic()
        if gone:
            self.pools.pop(name, None)
        else:
            self.pools[name] = body
        return name

    def cluster(self, body: Body, *, gone: bool) -> str | None:
        """A RayCluster was created, changed or deleted. Returns its pool."""
        return self._clusters.on_watch(body, None if gone else parse.ray_cluster(body))

    def pod(self, body: Body, *, gone: bool) -> str | None:
        """A pod was created, changed or deleted. Returns its pool."""
        return self._pods.on_watch(body, None if gone else parse.pod(body))

    def listed(self, kind: Kind, bodies: Iterable[Body], *, began: float) -> None:
        """Store one page of a full list of the objects of ``kind``. The list began at ``began`` (monotonic)."""
        for body in bodies:
            if kind == "clusters":
                self._clusters.listed(body, parse.ray_cluster(body), began)
            elif kind == "pods":
                self._pods.listed(body, parse.pod(body), began)
            elif self._pools_reported.get(body["metadata"]["name"], began) <= began:
                self.pool(body, gone=False)

    def sweep(self, *, began: float) -> None:
        """After full lists of all kinds, remove the objects that have not been reported since ``began``."""
        self._pools_reported = {name: at for name, at in self._pools_reported.items() if at >= began}
        for name in self.pools.keys() - self._pools_reported.keys():
            del self.pools[name]
        self._clusters.drop(began)
        self._pods.drop(began)

    def warning(self, body: Body) -> str | None:
        """A warning Event was reported. Returns the pool of its object, if known."""
        warned = parse.warned(body)
        kept = [known for known in self._warnings.pop(warned.about, []) if known.message != warned.message]
        self._warnings[warned.about] = [*kept, warned][-KEPT_WARNINGS:]
        while len(self._warnings) > KEPT_OBJECTS:
            self._warnings.popitem(last=False)
        known = self._clusters.known.get(warned.about) or self._pods.known.get(warned.about)
        return None if known is None else known.pool

    def view(self, pool: str, *, kuberay: bool) -> ClusterView:
        """Everything known about one pool."""
        clusters = tuple(entry.value for entry in self._clusters.known.values() if entry.pool == pool)
        pods = tuple(entry.value for entry in self._pods.known.values() if entry.pool == pool)
        names = {*(cluster.name for cluster in clusters), *(pod.name for pod in pods)}
        warnings = [warning for name in names & self._warnings.keys() for warning in self._warnings[name]]
        return ClusterView(
            kuberay=kuberay,
            clusters=clusters,
            pods=pods,
            warnings=tuple(
                sorted(warnings, key=lambda warning: (warning.at, warning.about, warning.message))
            ),
        )
