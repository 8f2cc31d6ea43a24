"""The kopf application. Its watches feed a cache and wake one reconcile loop per pool.

How it works: each watch event goes to the sink (the cache), which returns the pool that the event concerns, if any.
``Loops`` has one loop (an asyncio task) per pool. ``enqueue`` marks the pool dirty, and its loop notices the mark.
The loop first waits ``DEBOUNCE_S`` (except before its first step), so that a burst of events causes one step. Then the
loop calls ``Reconciler.step``, which returns the seconds until the next step. Steps of one pool never overlap, and a
failed step never ends a loop. The liveness probe fails if a loop has ended or a step hangs.

Objects have only ``on.event`` handlers: with these, kopf writes neither finalizers nor annotations, so every write
comes from a plan. At most one operator may run per namespace (one pod, strategy ``Recreate``).
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
from daybreak_server.operator.crd.resource import PLURAL
from daybreak_server.ports.cluster import API_GROUP, API_VERSION, POOL_LABEL

_log = logging.getLogger(__name__)
DEBOUNCE_S = 0.05
"""Watch events this close together trigger one step."""
STUCK_S = 120.0
CALLS = 32
"""Maximum number of concurrent calls to Kubernetes and to heads. It is large, so that heads that do not answer do not
block the other calls."""
NAME = "daybreak-operator"


class WatchSink(Protocol):
    """Receives watch events (``adapters.kube.Cache``). Each method returns the object's pool, if it has one."""

    pools: dict[str, Mapping[str, Any]]

    def pool(self, body: Mapping[str, Any], *, gone: bool) -> str:
        """Receive a GeneratorPool."""

    def cluster(self, body: Mapping[str, Any], *, gone: bool) -> str | None:
        """Receive a RayCluster."""

    def pod(self, body: Mapping[str, Any], *, gone: bool) -> str | None:
        """Receive a pod."""

    def warning(self, body: Mapping[str, Any]) -> str | None:
        """Receive a warning Event."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Runtime:
    """The parts of a running operator: the reconciler, and how to close its connections."""

    reconciler: Reconciler
    close: Callable[[], Awaitable[None]]


class Loops:
    """One asyncio task per pool. The steps of a pool never overlap."""

    def __init__(self, reconciler: Reconciler, sink: WatchSink) -> None:
        self._reconciler, self._sink = reconciler, sink
        self._dirty: dict[str, asyncio.Event] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._stepping_since: dict[str, float] = {}

    def enqueue(self, pool: str | None) -> None:
        """Reconcile this pool soon; its loop starts if necessary."""
        if pool is None or pool not in self._sink.pools:
            return
        if pool not in self._tasks:
            self._dirty[pool] = asyncio.Event()
            self._tasks[pool] = asyncio.create_task(self._run(pool), name=f"pool-{pool}")
        self._dirty[pool].set()
        self._reconciler.metrics.record_due(pool)

    async def end(self, pool: str) -> None:
        """Stop the loop of a deleted pool."""
        task = self._forget(pool)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self._reconciler.forget(pool)

    async def close(self) -> None:
        """Stop all loops. The next operator continues from the status of each GeneratorPool."""
        for pool in list(self._tasks):
            await self.end(pool)

    def liveness(self) -> dict[str, Any]:
        """The result of the liveness probe. :raises RuntimeError: if a loop has ended or hangs."""
        now = asyncio.get_running_loop().time()
        for pool, task in self._tasks.items():
            if task.done():
                raise RuntimeError(f"the loop of pool {pool} has ended")
            if now - self._stepping_since.get(pool, now) > STUCK_S:
                raise RuntimeError(f"the loop of pool {pool} hangs")
        return {"pools": len(self._tasks)}

    def _forget(self, pool: str) -> asyncio.Task[None] | None:
        self._dirty.pop(pool, None)
        self._stepping_since.pop(pool, None)
        return self._tasks.pop(pool, None)

    async def _run(self, pool: str) -> None:
        dirty = self._dirty[pool]
        while True:
            dirty.clear()
            self._stepping_since[pool] = asyncio.get_running_loop().time()
            self._reconciler.metrics.record_begun(pool)
            manifest = self._sink.pools.get(pool)
            if manifest is None:  # the watch missed the deletion, but a later list did not have the pool
                self._forget(pool)
                self._reconciler.forget(pool)
                return
            try:
                wait_s = await self._reconciler.step(pool, manifest)
            except Exception:
                _log.exception("pool %s: unexpected error; trying again in at most 10 s", pool)
                wait_s = 10.0
            self._stepping_since.pop(pool, None)
            try:
                await asyncio.wait_for(dirty.wait(), wait_s)
                await asyncio.sleep(DEBOUNCE_S)
            except TimeoutError:
                pass


def registry(sink: WatchSink, start: Callable[[], Runtime]) -> kopf.OperatorRegistry:
    """The registry with all handlers. ``start`` runs on kopf's event loop, and connects the operator."""
    handlers = kopf.OperatorRegistry()
    started: list[tuple[Loops, Runtime]] = []

    async def begin(settings: kopf.OperatorSettings, **_: Any) -> None:
        _configure(settings)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(CALLS))
        runtime = start()
        started.append((Loops(runtime.reconciler, sink), runtime))

    async def finish(**_: Any) -> None:
        for loops, runtime in started:
            await loops.close()
            await runtime.close()

    async def liveness(**_: Any) -> dict[str, Any]:
        return started[0][0].liveness()

    def enqueue(pool: str | None) -> None:
        started[0][0].enqueue(pool)

    async def pool(body: Mapping[str, Any], event: Mapping[str, Any], **_: Any) -> None:
        gone = event["type"] == "DELETED"
        name = sink.pool(dict(body), gone=gone)
        if gone:
            await started[0][0].end(name)
        else:
            enqueue(name)

    async def cluster(body: Mapping[str, Any], event: Mapping[str, Any], **_: Any) -> None:
        enqueue(sink.cluster(dict(body), gone=event["type"] == "DELETED"))

    async def pod(body: Mapping[str, Any], event: Mapping[str, Any], **_: Any) -> None:
        enqueue(sink.pod(dict(body), gone=event["type"] == "DELETED"))

    async def warning(body: Mapping[str, Any], event: Mapping[str, Any], **_: Any) -> None:
        if event["type"] != "DELETED":
            enqueue(sink.warning(dict(body)))

    kopf.on.login(registry=handlers)(kopf.login_via_client)
    kopf.on.startup(registry=handlers)(begin)
    kopf.on.cleanup(registry=handlers)(finish)
    kopf.on.probe(id="loops", registry=handlers, errors=kopf.ErrorsMode.PERMANENT)(liveness)
    kopf.on.event(API_GROUP, API_VERSION, PLURAL, registry=handlers)(pool)
    kopf.on.event(*_CLUSTERS, registry=handlers)(cluster)
    kopf.on.event(*_PODS, registry=handlers)(pod)
    kopf.on.event(*_EVENTS, registry=handlers)(warning)
    return handlers


_CLUSTERS = ("ray.io", "v1", "rayclusters")
_PODS = ("", "v1", "pods")
_EVENTS = ("", "v1", "events")


def _configure(settings: kopf.OperatorSettings) -> None:
    settings.networking.request_timeout = 30.0  # kopf's default is five minutes
    settings.posting.enabled = False
    settings.peering.standalone = True
    settings.scanning.disabled = True  # scanning would watch namespaces and CRDs of the whole cluster
    for kind in (_CLUSTERS, _PODS):
        settings.watching.label_selectors[kind] = POOL_LABEL
    settings.watching.field_selectors[_EVENTS] = "type=Warning"


def run(
    sink: WatchSink,
    start: Callable[[], Runtime],
    *,
    namespace: str,
    liveness: str | None,
    stop: asyncio.Event | None = None,
) -> None:
    """Run until SIGTERM or SIGINT, or until ``stop`` is set.

    ``liveness``: a URL such as ``http://0.0.0.0:8080/healthz``. kopf watches only the kinds of objects that exist in
    the cluster when ``run`` begins. If KubeRay is installed later, call ``run`` again.
    """
    kopf.run(
        registry=registry(sink, start),
        namespaces=[namespace],
        standalone=True,
        identity=NAME,
        liveness_endpoint=liveness,
        stop_flag=stop,
    )
