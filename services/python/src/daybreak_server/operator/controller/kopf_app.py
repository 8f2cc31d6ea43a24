"""The thin kopf shell: watches wake a loop for each pool.

Only ``on.event`` handlers: kopf then writes neither finalizers nor annotations, and everything that is written
is in a plan. Exactly one operator may run for a namespace (one pod, strategy ``Recreate``).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import kopf

from daybreak_server.operator.controller.reconciler import Reconciler
from daybreak_server.operator.crd.resource import GROUP, PLURAL, VERSION
from daybreak_server.ports.cluster import POOL_LABEL

_log = logging.getLogger(__name__)
DEBOUNCE_S = 0.05
"""What is heard in one breath is looked at once."""
STUCK_S = 120.0
CALLS = 32
"""Calls to Kubernetes and to heads that may be under way at once: heads that do not answer must not hold up others."""
NAME = "daybreak-operator"


class WatchSink(Protocol):
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """What a running operator is made of: what steps, and what to close when it ends."""

    reconciler: Reconciler
    close: Callable[[], Awaitable[None]]


class Loops:
    """A task for each pool. Its steps never overlap."""

    def __init__(self, reconciler: Reconciler, heard: WatchSink) -> None:
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
            heard = self._heard.pools.get(pool)
            if heard is None:  # gone meanwhile
                self._tasks.pop(pool, None)
                self._reconciler.forget(pool)
                return
            try:
                wait_s = await self._reconciler.step(pool, heard)
            except Exception:
                _log.exception("%s: an error of ours; the loop goes on", pool)
                wait_s = 10.0
            self._stepping_since.pop(pool, None)
            try:
                await asyncio.wait_for(bell.wait(), wait_s)
                await asyncio.sleep(DEBOUNCE_S)
            except TimeoutError:
                pass


def registry(heard: WatchSink, start: Callable[[], Runtime]) -> kopf.OperatorRegistry:
    """All handlers. ``start`` connects, on the event loop that kopf runs."""
    handlers = kopf.OperatorRegistry()
    is_busy: list[tuple[Loops, Runtime]] = []

    async def begin(settings: kopf.OperatorSettings, **_: Any) -> None:
        _configure(settings)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(CALLS))
        work = start()
        is_busy.append((Loops(work.reconciler, heard), work))

    async def finish(**_: Any) -> None:
        for loops, work in is_busy:
            await loops.close()
            await work.close()

    async def alive(**_: Any) -> dict[str, Any]:
        return is_busy[0][0].alive()

    def ring(pool: str | None) -> None:
        is_busy[0][0].ring(pool)

    async def pool(body: Mapping[str, Any], event: Mapping[str, Any], **_: Any) -> None:
        gone = event["type"] == "DELETED"
        name = heard.pool(dict(body), gone=gone)
        if gone:
            await is_busy[0][0].end(name)
        else:
            ring(name)

    async def cluster(body: Mapping[str, Any], event: Mapping[str, Any], **_: Any) -> None:
        ring(heard.cluster(dict(body), gone=event["type"] == "DELETED"))

    async def pod(body: Mapping[str, Any], event: Mapping[str, Any], **_: Any) -> None:
        ring(heard.pod(dict(body), gone=event["type"] == "DELETED"))

    async def warning(body: Mapping[str, Any], event: Mapping[str, Any], **_: Any) -> None:
        if event["type"] != "DELETED":
            ring(heard.warning(dict(body)))

    kopf.on.login(registry=handlers)(kopf.login_via_client)
    kopf.on.startup(registry=handlers)(begin)
    kopf.on.cleanup(registry=handlers)(finish)
    kopf.on.probe(id="loops", registry=handlers, errors=kopf.ErrorsMode.PERMANENT)(alive)
    kopf.on.event(GROUP, VERSION, PLURAL, registry=handlers)(pool)
    kopf.on.event(*_CLUSTERS, registry=handlers)(cluster)
    kopf.on.event(*_PODS, registry=handlers)(pod)
    kopf.on.event(*_EVENTS, registry=handlers)(warning)
    return handlers


_CLUSTERS = ("ray.io", "v1", "rayclusters")
_PODS = ("", "v1", "pods")
_EVENTS = ("", "v1", "events")


def _configure(settings: kopf.OperatorSettings) -> None:
    settings.networking.request_timeout = 30.0  # kopf's own is five minutes
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True  # it would watch namespaces and CRDs of the whole cluster
    for kind in (_CLUSTERS, _PODS):
        settings.watching.label_selectors[kind] = POOL_LABEL
    settings.watching.field_selectors[_EVENTS] = "type=Warning"


def run(
    heard: WatchSink,
    start: Callable[[], Runtime],
    *,
    namespace: str,
    liveness: str | None,
    stop: asyncio.Event | None = None,
) -> None:
    """Until SIGTERM, or until ``stop`` is set. ``liveness``: ``http://0.0.0.0:8080/healthz``.

    It watches the kinds that there are when it begins: where KubeRay comes later, it must be run again.
    """
    kopf.run(
        registry=registry(heard, start),
        namespaces=[namespace],
        standalone=True,
        identity=NAME,
        liveness_endpoint=liveness,
        stop_flag=stop,
    )
