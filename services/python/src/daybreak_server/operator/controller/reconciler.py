"""One pool's loop: look, plan, carry out, wait until something is heard or it is time to look again."""

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
from daybreak_server.operator.planner.actions import Action, Plan, WriteStatus
from daybreak_server.operator.planner.invalid_spec import refuse
from daybreak_server.operator.planner.observed import Observed
from daybreak_server.operator.planner.plan import plan
from daybreak_server.operator.planner.status import report
from daybreak_server.ports.cluster import (
    Cluster,
    ClusterConflictError,
    ClusterError,
    ClusterView,
    Serve,
    ServeView,
)
from daybreak_server.ports.pools import GroupStore
from daybreak_server.ports.store_errors import StoreError, StoreRefusedError

_log = logging.getLogger(__name__)
BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
REPORT_TTL_MARGIN_S = 90.0
"""What clients are told counts for so much longer than until the look after the next: a slow head takes its time
to be put its applications, and meanwhile nothing else is told."""
SERVE_STATES_S = 5.0
"""A head that is asked may be slow: it is not waited for longer than this."""

Body = Callable[[str], Awaitable[Mapping[str, Any] | None]]
"""The GeneratorPool as the API server has it now."""


@dataclass(slots=True)
class Reconciler:
    """Steps of all pools of a namespace. Steps of one pool never overlap; the caller sees to it."""

    cluster: Cluster
    serve: Serve
    groups: GroupStore
    body: Body
    metrics: OperatorMetrics
    _written: dict[str, PoolStatus] = field(default_factory=dict)
    """By uid: what was written last. A watch may show an older status, and it must not be believed."""
    _failed: dict[str, int] = field(default_factory=dict)
    _refused: dict[str, Cause] = field(default_factory=dict)
    """By pool: why Kubernetes refused something of a RayCluster at the last look."""
    _silent: dict[str, str] = field(default_factory=dict)
    """By RayCluster: why its head did not answer, told once."""

    async def step(self, name: str, heard: Mapping[str, Any]) -> float:
        """One look at the pool ``name``, ``heard`` of by the watch; seconds until the next one."""
        began = time.monotonic()
        try:
            status = await self._status(name, heard["metadata"]["uid"])
            if status is None:
                return BACKOFF_S[-1]
            pool, made = await self._decide(heard, status)
            self.metrics.planned(name, made)
            await self._tell(name, made)
            self._refused.pop(name, None)
            carrier = Executor(cluster=self.cluster, serve=self.serve, groups=self.groups)
            await carrier.carry_all(
                pool,
                made.actions,
                done=lambda action: self._done(pool, action),
                refused=lambda why: self._refused.update({name: why}),
            )
        except ValidationError as exc:
            self.metrics.failed(name, exc)
            _log.error("the status of %s cannot be read, and it is left alone: %s", name, exc)
            return BACKOFF_S[-1]
        except (ClusterError, StoreError) as exc:
            return self._again(name, exc)
        finally:
            self.metrics.looked(name, time.monotonic() - began)
        self._failed.pop(name, None)
        return made.requeue_after_s

    def _done(self, pool: PoolObject, action: Action) -> None:
        self.metrics.carried(pool.name, action)
        if isinstance(action, WriteStatus):
            self._written[pool.uid] = action.status

    def forget(self, name: str) -> None:
        """The pool is gone."""
        self._failed.pop(name, None)
        self._refused.pop(name, None)
        self.metrics.forget(name)

    async def _status(self, name: str, uid: str) -> PoolStatus | None:
        """As last written here, or as the API server has it at first sight; ``None`` where that pool is gone."""
        if uid not in self._written:
            fresh = await self.body(name)
            if fresh is None or fresh["metadata"]["uid"] != uid:
                return None
            self._written[uid] = PoolObject.read(fresh).status
        return self._written[uid]

    async def _decide(self, heard: Mapping[str, Any], status: PoolStatus) -> tuple[PoolObject, Plan]:
        """What to do, by the spec as heard."""
        try:
            pool = GeneratorPool.read(heard, status=status)
        except SpecInvalidError as exc:
            known = PoolObject.read(heard, status=status)
            self.metrics.failed(known.name, exc)
            made = refuse(known, exc, now=time.time())
            if made.actions:  # it is looked at again and again
                _log.error("%s is left alone: %s", known.name, exc)
            return known, made
        return pool, plan(await self._observe(pool))

    async def _observe(self, pool: GeneratorPool) -> Observed:
        view = await self.cluster.look(pool.name)
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

    async def _tell(self, name: str, made: Plan) -> None:
        """Clients see it; while Redis is away they see nothing anyway."""
        try:
            await self.groups.tell(
                name, report(made.status), ttl_s=made.requeue_after_s * 2 + REPORT_TTL_MARGIN_S
            )
        except StoreError as exc:
            _log.debug("%s: clients are not told: %s", name, exc)

    async def _serve(self, name: str, view: ClusterView) -> dict[str, ServeView]:
        """Of every head that is ready; one that does not answer is left out."""
        ready = {pod.cluster for pod in view.pods if pod.head and pod.ready and not pod.terminating}
        found: dict[str, ServeView] = {}
        for cluster in view.clusters:
            if cluster.name in ready and not cluster.suspend:
                try:
                    asked = self.serve.look(cluster, application=name)
                    found[cluster.name] = await asyncio.wait_for(asked, SERVE_STATES_S)
                    self._silent.pop(cluster.name, None)
                except (ClusterError, TimeoutError) as exc:
                    self._no_answer(cluster.name, str(exc) or f"not within {SERVE_STATES_S:g} s")
        return found

    def _no_answer(self, cluster: str, why: str) -> None:
        if self._silent.get(cluster) != why:
            self._silent[cluster] = why
            _log.info("the head of %s does not answer: %s", cluster, why)

    def _again(self, name: str, exc: Exception) -> float:
        times = self._failed.get(name, 0)
        self._failed[name] = times + 1
        self.metrics.failed(name, exc)
        quiet = isinstance(exc, ClusterConflictError) and times < len(BACKOFF_S)
        _log.log(logging.INFO if quiet else logging.WARNING, "%s: %s", name, exc)
        return BACKOFF_S[min(times, len(BACKOFF_S) - 1)]
