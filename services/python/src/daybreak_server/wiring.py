"""Composition root: the only module that knows which adapter implements which port."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daybreak_server.adapters.blobs import open_blobs
from daybreak_server.adapters.redis.client import OnCall
from daybreak_server.adapters.redis.endpoint import Endpoint
from daybreak_server.adapters.redis.events import RedisEvents
from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.adapters.redis.registry.store import RedisRegistry
from daybreak_server.adapters.redis.sessions.calls import SessionLimits
from daybreak_server.adapters.redis.sessions.events import RedisSessionEvents
from daybreak_server.adapters.redis.sessions.store import RedisSessionStore
from daybreak_server.adapters.redis.sessions.work import RedisSessionWork
from daybreak_server.adapters.redis.settle_batching import SharedQueue, shared_queue_factory
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.adapters.upstreams.client import HttpUpstreams
from daybreak_server.domain.causes import Cause
from daybreak_server.domain.changes import OnChange
from daybreak_server.domain.kinds import PoolKind
from daybreak_server.engines.common.config import GroupConfig
from daybreak_server.engines.common.rank_metrics import RankMetrics
from daybreak_server.engines.common.watchdog import Watchdog
from daybreak_server.engines.ranks.loops import GroupLoops
from daybreak_server.engines.ranks.rank_deps import RankDeps
from daybreak_server.engines.ranks.rank_lifecycle import Rank
from daybreak_server.engines.tasks.loops import JOBS
from daybreak_server.observability.changes import log_change, recorder
from daybreak_server.ports.blobs import Blobs
from daybreak_server.ports.metrics import Meter
from daybreak_server.ports.queue import WorkQueue
from daybreak_server.ports.store_errors import StoreError
from daybreak_server.ports.tracing import NO_TRACING, Tracing
from daybreak_server.settings.pool_workload import workload_spec
from daybreak_server.settings.rules.port_range import ports_of
from daybreak_server.settings.tracing import TracingSettings
from daybreak_server.settings.tree import ArtifactSettings, BulkSettings, Settings
from daybreak_server.workloads import discovery
from daybreak_server.workloads.base import Workload, WorkloadSpec

if TYPE_CHECKING:
    from fastapi import FastAPI

    from daybreak_server.api.services import Services
    from daybreak_server.engines.ranks.rendezvous import RendezvousStore


_log = logging.getLogger(__name__)
_GATEWAY, GROUP = "daybreak-gateway", "daybreak-group"  # names of processes in traces


class NoStoreError(ValueError):
    """The settings name no Redis. The functions of this module that connect to Redis raise this error."""


def redis_endpoint(settings: Settings) -> Endpoint:
    """Where Redis is and how to reach it. :raises NoStoreError: when the settings name none."""
    if settings.redis.url is None:
        raise NoStoreError(
            "no Redis is set: set DAYBREAK_REDIS__URL, or use `daybreakd up` or `daybreakd dev`, which start one"
        )
    return Endpoint.configured(settings.redis)


def build_queue(
    settings: Settings, pool: str, *, metrics: RankMetrics | None = None, on_change: OnChange = log_change
) -> WorkQueue:
    """The queue of a pool, for the leader of a group. ``metrics``: where its calls and its wake-ups are measured."""
    return RedisQueue(
        redis_endpoint(settings),
        pool=pool,
        prefix=settings.redis.prefix,
        lease_s=settings.pools[pool].lease.lease_s,
        timeout_s=settings.redis.timeout_s,
        on_woken=metrics.claimed if metrics else None,
        on_call=metrics.script_called if metrics else None,
        on_change=on_change,
    )


def shared_queue(settings: Settings, pool: str) -> Callable[[], WorkQueue]:
    """A function that returns the queue that all groups of ``pool`` in this process share.

    Tasks that these groups settle at the same time share one call to Redis.
    """
    return shared_queue_factory(
        lambda: SharedQueue(
            redis_endpoint(settings),
            pool=pool,
            prefix=settings.redis.prefix,
            lease_s=settings.pools[pool].lease.lease_s,
            timeout_s=settings.redis.timeout_s,
            on_change=log_change,
        )
    )


def build_blobs(settings: Settings) -> Blobs:
    """The blob store."""
    return open_blobs(settings.artifacts)


def build_store(settings: Settings) -> RedisStore:
    """The store alone, for the operator and other processes that serve no API."""
    redis = settings.redis
    return RedisStore(redis_endpoint(settings), prefix=redis.prefix, timeout_s=redis.timeout_s)


def build_registry(settings: Settings, *, on_call: OnCall | None = None) -> RedisRegistry:
    """The registry of workers and models."""
    redis = settings.redis
    return RedisRegistry(
        redis_endpoint(settings), prefix=redis.prefix, timeout_s=redis.timeout_s, on_call=on_call
    )


def build_services(settings: Settings, *, meter: Meter | None = None) -> Services:
    """The services behind the HTTP app. ``meter``: where the process's metrics go; by default to ``/metrics``."""
    from daybreak_server.api.services import Services
    from daybreak_server.observability.gateway_metrics import GatewayMetrics

    metrics, tracing = GatewayMetrics(meter), build_tracing(settings.tracing, service=_GATEWAY)
    on_change = recorder(tracing.session_ended)
    endpoint, prefix, timeout_s = redis_endpoint(settings), settings.redis.prefix, settings.redis.timeout_s
    store = RedisStore(
        endpoint,
        prefix=prefix,
        timeout_s=timeout_s,
        max_queued={name: pool.max_queued for name, pool in settings.pools.items()},
        target_loads=target_loads(settings),
        tenants_max=settings.metrics.tenants_max,
        on_call=metrics.observe_script,
        on_change=on_change,
    )
    events = RedisEvents(endpoint, prefix=prefix, timeout_s=timeout_s)
    registry = build_registry(settings, on_call=metrics.observe_script)
    sessions = RedisSessionStore(
        endpoint,
        limits=session_limits(settings),
        prefix=prefix,
        timeout_s=timeout_s,
        on_call=metrics.observe_script,
        on_change=on_change,
    )
    session_events = RedisSessionEvents(endpoint, sessions, prefix=prefix, timeout_s=timeout_s)

    async def close() -> None:
        await session_events.close()
        await sessions.close()
        await events.close()
        await store.close()
        await registry.close()
        await asyncio.to_thread(tracing.close)

    return Services(
        settings=settings,
        store=store,
        events=events,
        housekeeper=store,
        measurements=store,
        demand=store,
        registry=registry,
        batching=store,
        upstreams=HttpUpstreams(),
        sessions=sessions,
        session_events=session_events,
        metrics=metrics,
        blobs=build_blobs(settings),
        tracing=tracing,
        close=close,
    )


def build_tracing(settings: TracingSettings, *, service: str) -> Tracing:
    """The recorder of this process's traces. ``service`` is the name of the process in these traces."""
    if not settings.enabled:
        return NO_TRACING
    from daybreak_server.observability.tracing import open_tracing  # imports OpenTelemetry

    is_gateway, found = service == _GATEWAY, version("daybreak-server")
    return open_tracing(settings, service_name=service, version=found, is_gateway=is_gateway)


def build_app(settings: Settings, *, meter: Meter | None = None) -> FastAPI:
    """The HTTP app with its services."""
    from daybreak_server.api.app import build_app as compose

    return compose(build_services(settings, meter=meter))


def target_loads(settings: Settings) -> dict[str, float]:
    """For each pool of kind ``online`` or ``sessions``: how many requests or sessions one group should have."""
    specs = {name: workload_spec(pool) for name, pool in settings.pools.items()}
    usual = {
        name: pool.session_settings.max_batch_size
        if specs[name].kind == PoolKind.SESSIONS
        else pool.capacity or specs[name].capacity
        for name, pool in settings.pools.items()
        if specs[name].kind in (PoolKind.ONLINE, PoolKind.SESSIONS)
    }
    return {name: settings.pools[name].target_load or load for name, load in usual.items()}


def session_limits(settings: Settings) -> Callable[[str], SessionLimits]:
    """A function from a pool's name to the limits of the pool's sessions."""
    loads = target_loads(settings)
    found = {
        name: SessionLimits(
            max_sessions=pool.session_settings.max_sessions,
            max_per_tenant=settings.http.max_sessions_per_tenant,
            timeout_s=pool.session_settings.session_timeout_s,
            target_load=loads.get(name, 1.0),
        )
        for name, pool in settings.pools.items()
    }
    return lambda pool: found.get(pool, SessionLimits())


def build_session_work(
    settings: Settings, pool: str, *, on_call: OnCall | None = None, on_change: OnChange = log_change
) -> RedisSessionWork:
    """The sessions of a pool, for the leader of a group."""
    return RedisSessionWork(
        redis_endpoint(settings),
        pool=pool,
        prefix=settings.redis.prefix,
        lease_s=settings.pools[pool].lease.lease_s,
        timeout_s=settings.redis.timeout_s,
        on_call=on_call,
        on_change=on_change,
    )


def group_config(settings: Settings, pool: str, *, device: str = "cpu") -> GroupConfig:
    """The configuration of a group of ``pool``. ``device``: what ``auto`` means on this machine."""
    options = settings.pools[pool]
    bulk = options.bulk or BulkSettings()
    return GroupConfig(
        pool=pool,
        ranks=options.ranks,
        device=device if options.device == "auto" else options.device,
        threads=max(1, int(options.cpus_per_rank)),
        options=options.workload_options,
        scratch=scratch_folder(settings),
        lease_s=options.lease.lease_s,
        stall_s=options.lease.stall_s,
        load_stall_s=options.lease.load_stall_s,
        checkpoint_s=options.checkpoint_s,
        progress_s=options.progress_s,
        drain_s=options.drain_s,
        capacity=options.capacity or workload_spec(options).capacity,
        ports=(0,) if options.ports is None else ports_of(options.ports),
        sessions=options.session_settings.values(),
        bulk_max_bytes=bulk.max_bytes,
        bulk_max_line_bytes=bulk.max_line_bytes,
        bulk_max_lines=bulk.max_lines,
    )


def bulk_places(settings: Settings, pool: str) -> dict[str, Callable[[], Blobs]]:
    """For each place from which tasks of this pool may read files: its name, and a function that opens it."""
    bulk, s3 = settings.pools[pool].bulk, settings.artifacts.s3
    urls = bulk.places if bulk is not None else {}
    return {name: partial(open_blobs, ArtifactSettings(url=url, s3=s3)) for name, url in urls.items()}


def scratch_folder(settings: Settings) -> Path:
    """The folder for the scratch folders of attempts."""
    return settings.data_dir / "scratch"


def build_rank(
    settings: Settings,
    pool: str,
    *,
    rank: int = 0,
    device: str = "cpu",
    on_broken: Callable[[Cause], None],
    rendezvous: RendezvousStore | None = None,
    host: str = "127.0.0.1",
    label: str = "",
    wake: dict[str, float] | None = None,
    with_watchdog: bool = False,
    meter: Meter | None = None,
    queue: Callable[[], WorkQueue] | None = None,
) -> Rank:
    """A rank of a group of ``pool``, not started yet.

    ``queue``: opens a queue that groups of this process share (:func:`shared_queue`). By default, the rank has its own.
    ``with_watchdog``: whether a leader starts a watchdog process, which keeps the lease when the leader's threads
    cannot run. The watchdog kills this process when the leader's work stalls, so this process must hold no other rank.
    """
    spec = workload_spec(settings.pools[pool])
    metrics = RankMetrics(meter, pool=pool, rank=rank)
    tracing = build_tracing(settings.tracing, service=GROUP) if rank == 0 else NO_TRACING
    on_change = recorder(tracing.session_ended)
    deps = RankDeps(
        queue=queue or (lambda: build_queue(settings, pool, metrics=metrics, on_change=on_change)),
        metrics=metrics,
        blobs=lambda: build_blobs(settings),
        session_work=lambda: build_session_work(
            settings, pool, on_call=metrics.script_called, on_change=on_change
        ),
        places=bulk_places(settings, pool),
        workload=lambda: _implementation(spec),
        on_broken=on_broken,
        rendezvous=rendezvous,
        host=host,
        label=label,
        watchdog=(lambda: build_watchdog(settings, pool)) if with_watchdog else None,
        fetch_model=model_fetch(settings, pool),
        on_model_unavailable=lambda why: report_failure(settings, pool, rank=rank, why=why),
        tracing=tracing,
        wake=wake or {},
    )
    config = group_config(settings, pool, device=device)
    return Rank(spec, config, deps, rank=rank, loops=LOOPS[PoolKind(spec.kind)](deps))


def _serving_loops(deps: RankDeps) -> GroupLoops:
    from daybreak_server.engines.serving.loops import serving_loops  # imports an HTTP server

    return serving_loops(deps.host)


def _sessions_loops(deps: RankDeps) -> GroupLoops:
    from daybreak_server.engines.sessions.loops import sessions_loops

    assert deps.session_work is not None, "a rank that serves sessions needs their store"
    return sessions_loops(deps.session_work)


LOOPS: Mapping[PoolKind, Callable[[RankDeps], GroupLoops]] = {
    PoolKind.JOBS: lambda _deps: JOBS,
    PoolKind.ONLINE: _serving_loops,
    PoolKind.SESSIONS: _sessions_loops,
}
"""For each kind of pool: what the groups of such a pool do when their model is loaded."""


def model_fetch(settings: Settings, pool: str) -> Callable[[Callable[[int, int], None]], str] | None:
    """The function that downloads the pool's model to this node; ``None`` if the model is not in S3."""
    url = settings.pools[pool].model
    if url is None or not url.startswith("s3://"):
        return None

    def fetch(on_progress: Callable[[int, int], None]) -> str:
        from daybreak_server.adapters.blobs.model_cache import ModelCache
        from daybreak_server.adapters.blobs.model_source import S3Model  # boto3 takes half a second to import

        model = S3Model(url, settings.artifacts.s3)
        return str(ModelCache(settings.model_cache).get(model, on_progress=on_progress))

    return fetch


def report_failure(settings: Settings, pool: str, *, rank: int, why: Cause) -> None:
    """Log why a rank failed, and publish it as the pool's failure if the store answers."""
    _log.error("rank %d of pool %s failed: %s", rank, pool, why)
    with contextlib.closing(build_queue(settings, pool)) as queue:
        try:
            queue.report_failure(why, rank=rank)
        except StoreError as exc:
            _log.warning("cannot publish why rank %d of pool %s failed: %s", rank, pool, exc)


def build_watchdog(settings: Settings, pool: str) -> Watchdog:
    """A leader's watchdog, whose process is not started yet."""
    command = (sys.executable, "-m", "daybreak_server.entrypoints.watchdog")
    config = {
        "endpoint": asdict(redis_endpoint(settings)),
        "pool": pool,
        "prefix": settings.redis.prefix,
        "lease_s": settings.pools[pool].lease.lease_s,
        "timeout_s": settings.redis.timeout_s,
        "log": settings.log.model_dump(),
        "tracing": settings.tracing.model_dump(mode="json"),
    }
    return Watchdog(command, config=config)


def _implementation(spec: WorkloadSpec[Any]) -> Workload[Any]:
    return discovery.implementation(spec)
