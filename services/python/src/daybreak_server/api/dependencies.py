"""The parts that all routes share. One :class:`Dependencies` is composed for each app."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass, replace
from secrets import token_hex
from typing import Any

from daybreak_server.api import serializers
from daybreak_server.api.auth.principal import Principal
from daybreak_server.api.background.metrics_reader import MetricsReader
from daybreak_server.api.errors import task_not_found
from daybreak_server.api.intake.bulkhead import BoundedEvents, BoundedStore
from daybreak_server.api.intake.catalog import Catalog, PoolEntry, PoolViewCache
from daybreak_server.api.intake.submission import TaskIntake
from daybreak_server.api.intake.submit_batching import SubmitBatcher
from daybreak_server.api.routing.model_demand import ModelDemand
from daybreak_server.api.routing.model_routers import ModelRouters
from daybreak_server.api.routing.registry_cache import RegistryCache
from daybreak_server.api.routing.request_body import BufferedBytes
from daybreak_server.api.routing.serving_pools import ServingPools
from daybreak_server.api.serializers import Json
from daybreak_server.api.services import Services
from daybreak_server.api.streaming.broadcaster import Broadcaster
from daybreak_server.api.streaming.stream_limits import StreamLimits
from daybreak_server.api.streaming.subscription import Sources
from daybreak_server.domain.kinds import PoolKind
from daybreak_server.domain.pools import PoolView
from daybreak_server.domain.tasks import TaskRecord
from daybreak_server.model_placement.manager import Manager
from daybreak_server.observability.gateway_metrics import GatewayMetrics
from daybreak_server.ports.store_errors import StoreError


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies:
    """The services and components that the routes call."""

    services: Services
    catalog: Catalog
    pool_views: PoolViewCache
    submission: TaskIntake
    submit_batcher: SubmitBatcher
    metrics: GatewayMetrics
    metrics_reader: MetricsReader
    broadcaster: Broadcaster
    stream_limits: StreamLimits
    sources: Sources
    serving_pools: ServingPools
    registry_cache: RegistryCache
    model_routers: ModelRouters
    model_demand: ModelDemand
    in_memory_bodies: BufferedBytes
    manager: Manager

    @classmethod
    def of(cls, services: Services) -> Dependencies:
        """Compose the parts. :raises UnknownWorkloadError: if a pool's workload is not installed."""
        timeout_s = services.settings.redis.timeout_s
        services = replace(
            services,
            store=BoundedStore(services.store, timeout_s=timeout_s),
            events=BoundedEvents(services.events, timeout_s=timeout_s),
        )
        settings, metrics = services.settings, services.metrics
        catalog = Catalog(settings)
        pool_views = PoolViewCache(services.store, services.now_ms)
        broadcaster = Broadcaster(services.events, metrics)
        return cls(
            services=services,
            catalog=catalog,
            pool_views=pool_views,
            submission=TaskIntake(settings, catalog, pool_views, services.now_ms),
            submit_batcher=SubmitBatcher(services.store),
            metrics=metrics,
            metrics_reader=MetricsReader(
                pools=[entry.name for entry in catalog],
                pool_views=pool_views,
                measurements=services.measurements,
                sessions={
                    entry.name: services.sessions for entry in catalog if entry.spec.kind == PoolKind.SESSIONS
                },
                metrics=metrics,
            ),
            broadcaster=broadcaster,
            stream_limits=StreamLimits(settings.http, metrics),
            sources=Sources(
                broadcaster=broadcaster,
                store=services.store,
                events=services.events,
                pool_views=pool_views,
                now_ms=services.now_ms,
                heartbeat_s=settings.http.heartbeat_s,
                timeout_s=timeout_s,
            ),
            **_routing(services, catalog, pool_views, metrics),
        )

    async def record(self, caller: Principal, task: str) -> tuple[TaskRecord, PoolEntry]:
        """The caller's task and its pool. :raises ApiError: ``not_found``, also for another tenant's task."""
        task_id, entry = self.catalog.find_task(task)
        record = await self.services.store.get(task_id)
        if record is None or record.tenant != caller.tenant:
            raise task_not_found(task)
        return record, entry

    async def task_json(self, record: TaskRecord) -> Json:
        """The task as clients see it. The state of its pool is that of the last tick, normally about a second old."""
        view = await self.view(record.pool) if record.state.waiting else None
        return serializers.task(record, view, self.services.now_ms())

    async def view(self, pool: str) -> PoolView | None:
        """The pool's view, or ``None`` if the store cannot be reached.

        The view only adds to the response of an operation that has succeeded, so a missing view is not an error.
        """
        latest = self.pool_views.latest(pool)
        if latest is not None:
            return latest
        try:
            return await self.pool_views.get(pool)
        except StoreError:
            return None


def _routing(
    services: Services, catalog: Catalog, pool_views: PoolViewCache, metrics: GatewayMetrics
) -> dict[str, Any]:
    """The parts that pass requests on to the groups of serving pools and to the workers of models."""
    settings, gateway = services.settings, f"{socket.gethostname()}-{os.getpid()}-{token_hex(4)}"
    in_memory = BufferedBytes(settings.router.max_buffered_bytes)

    def keep_connections() -> None:
        services.upstreams.keep([*pools.endpoints, *models.endpoints])

    pools = ServingPools(
        catalog,
        pool_views=pool_views,
        upstreams=services.upstreams,
        demand=services.demand,
        settings=settings.router,
        meter=metrics.meter,
        tracing=services.tracing,
        now_ms=services.now_ms,
        in_memory=in_memory,
        gateway=gateway,
        on_groups=keep_connections,
    )
    demand = ModelDemand(services.registry, gateway=gateway)
    models = ModelRouters(
        demand=demand,
        upstreams=services.upstreams,
        settings=settings.router,
        token=settings.workers.token,
        meter=metrics.meter,
        tracing=services.tracing,
        in_memory=in_memory,
        on_groups=keep_connections,
    )
    cache = RegistryCache(services.registry)
    cache.subscribe(metrics.models.update)
    cache.subscribe(models.update)
    return {
        "serving_pools": pools,
        "registry_cache": cache,
        "model_routers": models,
        "model_demand": demand,
        "in_memory_bodies": in_memory,
        "manager": Manager(services.registry, holder=gateway),
    }
