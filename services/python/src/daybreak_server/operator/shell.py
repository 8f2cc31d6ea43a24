"""The thin kopf shell: watches wake a loop for each pool. It has not run on a cluster yet.

Only ``on.event`` handlers: kopf then writes neither finalizers nor annotations, and everything that is written
is in a plan. Exactly one operator may run for a namespace (one pod, strategy ``Recreate``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import kopf

from daybreak_server.operator.reconciling import Reconciler
from daybreak_server.operator.resource import GROUP, PLURAL, VERSION
from daybreak_server.ports.cluster import POOL_LABEL

_log = logging.getLogger(__name__)
GATHER_S = 0.05
"""What is heard in one breath is looked at once."""
STUCK_S = 120.0


class Heard(Protocol):
    """Takes what the watches tell; each call answers which pool it is about (``adapters.kube.Cache``)."""

    pools: dict[str, Mapping[str, Any]]

    def pool(self, body: Mapping[str, Any], *, gone: bool) -> str:
        """A GeneratorPool."""

    def cluster(self, body: Mapping[str, Any], *, gone: bool) -> str | None:
        """A RayCluster."""

    def pod(self, body: Mapping[str, Any], *, gone: bool) -> str | None:
        """A pod."""

    def warning(self, body: Mapping[str, Any]) -> str | None:
        """A warning Event."""


class Loops:
    """A task for each pool. Its steps never overlap."""

    def __init__(self, reconciler: Reconciler, heard: Heard) -> None:
        self._reconciler, self._heard = reconciler, heard
        self._bells: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stepping_since: dict[str, float] = {}

    def ring(self, pool: str | None) -> None:
        """Something about this pool was heard."""
        if pool is None or pool not in self._heard.pools:
            return
        if pool not in self._tasks:
            self._bells[pool] = asyncio.Event()
            self._tasks[pool] = asyncio.create_task(self._keep(pool), name=f"pool-{pool}")
        self._bells[pool].set()

    async def end(self, pool: str) -> None:
        """The pool is gone."""
        task = self._tasks.pop(pool, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._reconciler.forget(pool)

    async def close(self) -> None:
        """The operator stops; whoever comes next goes on."""
        for pool in list(self._tasks):
            await self.end(pool)

    def alive(self) -> dict[str, Any]:
        """For the liveness probe. :raises RuntimeError: when a loop has ended or hangs."""
        now = asyncio.get_running_loop().time()
        for pool, task in self._tasks.items():
            if task.done():
                raise RuntimeError(f"the loop of {pool} has ended")
            if now - self._stepping_since.get(pool, now) > STUCK_S:
                raise RuntimeError(f"the loop of {pool} hangs")
        return {"pools": len(self._tasks)}

    async def _keep(self, pool: str) -> None:
        bell = self._bells[pool]
        while True:
            bell.clear()
            self._stepping_since[pool] = asyncio.get_running_loop().time()
            try:
                wait_s = await self._reconciler.step(pool, self._heard.pools[pool])
            except KeyError:  # gone meanwhile
                return
            except Exception:
                _log.exception("%s: an error of ours; the loop goes on", pool)
                wait_s = 10.0
            self._stepping_since.pop(pool, None)
            try:
                await asyncio.wait_for(bell.wait(), wait_s)
                await asyncio.sleep(GATHER_S)
            except TimeoutError:
                pass


def registry(heard: Heard, start: Callable[[], Reconciler]) -> kopf.OperatorRegistry:
    """All handlers. ``start`` connects, on the event loop that kopf runs."""
    handlers = kopf.OperatorRegistry()
    loops: list[Loops] = []
    present = {POOL_LABEL: kopf.PRESENT}

    async def begin(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.networking.request_timeout = 30.0  # kopf's own is five minutes
        settings.posting.enabled = False
        settings.peering.standalone = True
        loops.append(Loops(start(), heard))

    async def finish(**_: Any) -> None:
        for one in loops:
            await one.close()

    async def alive(**_: Any) -> dict[str, Any]:
        return loops[0].alive() if loops else {}

    async def pool(body: Mapping[str, Any], event: Mapping[str, Any], **_: Any) -> None:
        gone = event["type"] == "DELETED"
        name = heard.pool(dict(body), gone=gone)
        if gone:
            await loops[0].end(name)
        else:
            loops[0].ring(name)

    async def cluster(body: Mapping[str, Any], event: Mapping[str, Any], **_: Any) -> None:
        loops[0].ring(heard.cluster(dict(body), gone=event["type"] == "DELETED"))

    async def pod(body: Mapping[str, Any], event: Mapping[str, Any], **_: Any) -> None:
        loops[0].ring(heard.pod(dict(body), gone=event["type"] == "DELETED"))

    async def warning(body: Mapping[str, Any], event: Mapping[str, Any], **_: Any) -> None:
        if event["type"] != "DELETED":
            loops[0].ring(heard.warning(dict(body)))

    kopf.on.startup(registry=handlers)(begin)
    kopf.on.cleanup(registry=handlers)(finish)
    kopf.on.probe(id="loops", registry=handlers)(alive)
    kopf.on.event(GROUP, VERSION, PLURAL, registry=handlers)(pool)
    kopf.on.event("ray.io", "v1", "rayclusters", labels=present, registry=handlers)(cluster)
    kopf.on.event("", "v1", "pods", labels=present, registry=handlers)(pod)
    kopf.on.event("", "v1", "events", field="type", value="Warning", registry=handlers)(warning)
    return handlers


def run(heard: Heard, start: Callable[[], Reconciler], *, namespace: str, liveness: str | None) -> None:
    """Until SIGTERM. ``liveness``: ``http://0.0.0.0:8080/healthz``. The pod sets ``POD_ID`` for kopf."""
    kopf.run(
        registry=registry(heard, start),
        namespaces=[namespace],
        standalone=True,
        liveness_endpoint=liveness,
    )
