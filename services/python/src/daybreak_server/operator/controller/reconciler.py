"""One reconcile step of a pool: observe, plan, publish the report, run the actions.

``step`` returns the seconds until the next step. Failures never escape it: they are counted, logged, and retried with
backoff. A pool whose spec or status cannot be read is left alone and reported.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from daybreak_server.domain.causes import Cause, Reason
from daybreak_server.domain.pools import PoolView
from daybreak_server.operator.controller.executor import Executor
from daybreak_server.operator.controller.metrics import OperatorMetrics
from daybreak_server.operator.crd.resource import GeneratorPool, PoolObject, PoolStatus, SpecInvalidError
from daybreak_server.operator.planner.actions import Action, PoolPlan, WriteStatus
from daybreak_server.operator.planner.invalid_spec import refuse
from daybreak_server.operator.planner.observed import Observed
from daybreak_server.operator.planner.plan import plan
from daybreak_server.operator.planner.status import report
from daybreak_server.ports.cluster import (
    Cluster,
    ClusterConflictError,
    ClusterError,
    ClusterView,
    ServeApi,
    ServeView,
)
from daybreak_server.ports.pools import GroupStore
from daybreak_server.ports.store_errors import StoreError, StoreRefusedError

_log = logging.getLogger(__name__)
BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
REPORT_TTL_MARGIN_S = 90.0
"""A published report is kept for twice the time until the next step, plus this margin, because a deployment to a slow
head delays the next report."""
SERVE_STATES_S = 5.0
"""How long a step waits for the answer of one head."""

PoolReader = Callable[[str], Awaitable[Mapping[str, Any] | None]]
"""Reads a GeneratorPool from the API server."""


@dataclass(slots=True)
class Reconciler:
    """The steps of all pools of a namespace. The caller makes sure that steps of one pool never overlap."""

    cluster: Cluster
    serve: ServeApi
    groups: GroupStore
    read_pool: PoolReader
    metrics: OperatorMetrics
    _written: dict[str, tuple[str, PoolStatus]] = field(default_factory=dict)
    """By pool: its uid, and the status written last. A watch may show an older status, which must not be used."""
    _failures: dict[str, int] = field(default_factory=dict)
    _refused: dict[str, Cause] = field(default_factory=dict)
    """By pool: why Kubernetes refused a change of a RayCluster in the last step."""
    _silent: dict[str, dict[str, str]] = field(default_factory=dict)
    """By pool and RayCluster: why its head did not answer, so that each reason is logged only once."""

    async def step(self, name: str, manifest: Mapping[str, Any]) -> float:
        """Reconcile pool ``name``, which the watch delivered as ``manifest``. :returns: seconds until the next step."""
        began = time.monotonic()
        try:
            status = await self._status(name, manifest["metadata"]["uid"])
            if status is None:
                return BACKOFF_S[-1]
            pool, decided = await self._decide(manifest, status)
            self.metrics.record_plan(name, decided)
            await self._publish_report(name, decided, manifest)
            self._refused.pop(name, None)
            executor = Executor(cluster=self.cluster, serve=self.serve, groups=self.groups)
            await executor.execute_all(
                pool,
                decided.actions,
                done=lambda action: self._done(pool, action),
                refused=lambda why: self._refused.update({name: why}),
            )
        except ValidationError as exc:
            self.metrics.record_failure(name, exc)
            _log.error("the status of pool %s cannot be read, so nothing is changed: %s", name, exc)
            return BACKOFF_S[-1]
        except (ClusterError, StoreError) as exc:
            return self._back_off(name, exc)
        finally:
            self.metrics.record_step(name, time.monotonic() - began)
        self._failures.pop(name, None)
        return decided.requeue_after_s

    def _done(self, pool: PoolObject, action: Action) -> None:
        self.metrics.record_action(pool.name, action)
        if isinstance(action, WriteStatus):
            self._written[pool.name] = (pool.uid, action.status)

    def forget(self, name: str) -> None:
        """Drop what is remembered about a deleted pool."""
        for remembered in (self._written, self._failures, self._refused, self._silent):
            remembered.pop(name, None)
        self.metrics.forget(name)

    async def _status(self, name: str, uid: str) -> PoolStatus | None:
        """The status that this process wrote last. Before its first write, the status that it reads from Kubernetes.

        ``None`` if the pool is gone.
        """
        known, status = self._written.get(name, ("", None))
        if status is None or known != uid:
            fresh = await self.read_pool(name)
            if fresh is None or fresh["metadata"]["uid"] != uid:
                return None
            status = PoolObject.read(fresh).status
            self._written[name] = (uid, status)
        return status

    async def _decide(self, manifest: Mapping[str, Any], status: PoolStatus) -> tuple[PoolObject, PoolPlan]:
        """Plan the pool from its manifest."""
        try:
            pool = GeneratorPool.read(manifest, status=status)
        except SpecInvalidError as exc:
            known = PoolObject.read(manifest, status=status)
            self.metrics.record_failure(known.name, exc)
            decided = refuse(known, exc, now=time.time())
            if decided.actions:  # log once, not on every step
                _log.error("the spec of pool %s cannot be read, so nothing is changed: %s", known.name, exc)
            return known, decided
        return pool, plan(await self._observe(pool))

    async def _observe(self, pool: GeneratorPool) -> Observed:
        view = await self.cluster.observe(pool.name)
        store, error = await self._store(pool.name)
        return Observed(
            now=time.time(),
            pool=pool,
            view=view,
            serve=await self._serve(pool.name, view),
            store=store,
            store_error=error,
            refused=self._refused.get(pool.name),
            failure=None if store is None else store.failure,
        )

    async def _store(self, name: str) -> tuple[PoolView | None, Cause | None]:
        try:
            return await self.groups.pool(name), None
        except StoreError as exc:
            refused = isinstance(exc, StoreRefusedError)
            reason = Reason.REDIS_REFUSED if refused else Reason.REDIS_UNREACHABLE
            return None, Cause(reason=reason, message=str(exc) or type(exc).__name__)

    async def _publish_report(self, name: str, decided: PoolPlan, manifest: Mapping[str, Any]) -> None:
        """Show the status to clients. A failure is harmless: without Redis, clients see nothing anyway.

        The target load is read from the manifest, because it applies even if another field of the spec is invalid.
        """
        shown = report(decided.status, target_load=manifest.get("spec", {}).get("targetLoad"))
        try:
            await self.groups.publish_report(
                name, shown, ttl_s=decided.requeue_after_s * 2 + REPORT_TTL_MARGIN_S
            )
        except StoreError as exc:
            _log.debug("the report of pool %s was not published: %s", name, exc)

    async def _serve(self, name: str, view: ClusterView) -> dict[str, ServeView]:
        """Serve's state on every head that is ready and answers."""
        ready = {pod.cluster for pod in view.pods if pod.head and pod.ready and not pod.terminating}
        found: dict[str, ServeView] = {}
        silent: dict[str, str] = {}
        for cluster in view.clusters:
            if cluster.name in ready and not cluster.suspend:
                try:
                    reading = self.serve.observe(cluster, application=name)
                    found[cluster.name] = await asyncio.wait_for(reading, SERVE_STATES_S)
                except (ClusterError, TimeoutError) as exc:
                    silent[cluster.name] = str(exc) or f"no answer within {SERVE_STATES_S:g} s"
        logged = self._silent.get(name, {})
        self._silent[name] = silent
        for head, why in silent.items():
            if logged.get(head) != why:
                _log.info("the head of RayCluster %s does not answer: %s", head, why)
        return found

    def _back_off(self, name: str, exc: Exception) -> float:
        times = self._failures.get(name, 0)
        self._failures[name] = times + 1
        self.metrics.record_failure(name, exc)
        quiet = isinstance(exc, ClusterConflictError) and times < len(BACKOFF_S)
        _log.log(logging.INFO if quiet else logging.WARNING, "pool %s: %s", name, exc)
        return BACKOFF_S[min(times, len(BACKOFF_S) - 1)]
