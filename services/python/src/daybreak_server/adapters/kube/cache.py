"""What the API server has told so far, by pool: fed by watches, set right by lists, read by looks."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from daybreak_server.adapters.kube import parse
from daybreak_server.ports.cluster import POOL_LABEL, ClusterView, Pod, RayCluster, Warned

KEPT_WARNINGS = 5
"""Of one object."""
KEPT_OBJECTS = 500
"""With warnings; whatever else lives in the namespace, this does not grow."""
Body = Mapping[str, Any]
Kind = Literal["pools", "clusters", "pods"]
T = TypeVar("T", RayCluster, Pod)


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    """One object, whose it is, and when it was heard of (monotonic)."""

    pool: str
    value: T
    heard: float


@dataclass(slots=True)
class _Index(Generic[T]):
    """The objects of one kind, by name."""

    known: dict[str, _Entry[T]] = field(default_factory=dict)
    gone: dict[str, float] = field(default_factory=dict)
    """Those that went, and when that was heard: a list that is under way may still hold them."""

    def hear(self, body: Body, value: T | None) -> str | None:
        """By a watch; ``None`` where it went. The pool that it belongs to."""
        meta, now = body["metadata"], time.monotonic()
        pool = (meta.get("labels") or {}).get(POOL_LABEL)
        if value is None or pool is None:
            self.known.pop(meta["name"], None)
            self.gone[meta["name"]] = now
        else:
            self.known[meta["name"]] = _Entry(pool=str(pool), value=value, heard=now)
        return pool if pool is None else str(pool)

    def listed(self, body: Body, value: T, began: float) -> None:
        """By a list. What a watch has told since it was asked for is newer."""
        name = body["metadata"]["name"]
        known = self.known.get(name)
        if self.gone.get(name, began) <= began and (known is None or known.heard <= began):
            self.hear(body, value)

    def drop(self, began: float) -> None:
        """What was neither listed nor heard of since."""
        for name in [name for name, one in self.known.items() if one.heard < began]:
            del self.known[name]
        self.gone.clear()


class Cache:
    """The newest known body of each object. One thread (the event loop's) writes and reads it."""

    def __init__(self) -> None:
        self.pools: dict[str, Body] = {}
        self._pools_heard: dict[str, float] = {}
        """When each was last heard of, those that went as well until the next list."""
        self._clusters: _Index[RayCluster] = _Index()
        self._pods: _Index[Pod] = _Index()
        self._warnings: OrderedDict[str, list[Warned]] = OrderedDict()

    def pool(self, body: Body, *, gone: bool) -> str:
        """A GeneratorPool came, changed or went; its name."""
        name = str(body["metadata"]["name"])
        self._pools_heard[name] = time.monotonic()
        if gone:
            self.pools.pop(name, None)
        else:
            self.pools[name] = body
        return name

    def cluster(self, body: Body, *, gone: bool) -> str | None:
        """A RayCluster; the pool that it belongs to."""
        return self._clusters.hear(body, None if gone else parse.ray_cluster(body))

    def pod(self, body: Body, *, gone: bool) -> str | None:
        """A pod; the pool that it belongs to."""
        return self._pods.hear(body, None if gone else parse.pod(body))

    def listed(self, kind: Kind, bodies: Iterable[Body], *, began: float) -> None:
        """A part of all that there is of a kind, by a list that was asked for at ``began`` (monotonic)."""
        for body in bodies:
            if kind == "clusters":
                self._clusters.listed(body, parse.ray_cluster(body), began)
            elif kind == "pods":
                self._pods.listed(body, parse.pod(body), began)
            elif self._pools_heard.get(body["metadata"]["name"], began) <= began:
                self.pool(body, gone=False)

    def sweep(self, *, began: float) -> None:
        """All kinds have been listed since ``began``.

        A watch that had to begin anew says nothing of what went meanwhile: what is not listed, and was not heard
        of since, is gone.
        """
        self._pools_heard = {name: at for name, at in self._pools_heard.items() if at >= began}
        for name in self.pools.keys() - self._pools_heard.keys():
            del self.pools[name]
        self._clusters.drop(began)
        self._pods.drop(began)

    def warning(self, body: Body) -> str | None:
        """A warning Event; the pool that it is about, as far as that is known by now."""
        warned = parse.warned(body)
        kept = [one for one in self._warnings.pop(warned.about, []) if one.message != warned.message]
        self._warnings[warned.about] = [*kept, warned][-KEPT_WARNINGS:]
        while len(self._warnings) > KEPT_OBJECTS:
            self._warnings.popitem(last=False)
        known = self._clusters.known.get(warned.about) or self._pods.known.get(warned.about)
        return None if known is None else known.pool

    def view(self, pool: str, *, kuberay: bool) -> ClusterView:
        """All of it, for one pool."""
        clusters = tuple(one.value for one in self._clusters.known.values() if one.pool == pool)
        pods = tuple(one.value for one in self._pods.known.values() if one.pool == pool)
        names = {*(one.name for one in clusters), *(one.name for one in pods)}
        warnings = [one for name in names & self._warnings.keys() for one in self._warnings[name]]
        return ClusterView(
            kuberay=kuberay,
            clusters=clusters,
            pods=pods,
            warnings=tuple(sorted(warnings, key=lambda one: (one.at, one.about, one.message))),
        )
