"""Composition: the one place that knows which adapter stands behind which port."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from daybreak_server.adapters.blobs import open_blobs
from daybreak_server.adapters.redis.endpoint import Endpoint
from daybreak_server.adapters.redis.events import RedisEvents
from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.adapters.redis.settle_batching import SharedQueue, shared_queue_factory
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.domain.causes import Cause
from daybreak_server.domain.kinds import PoolKind
from daybreak_server.engines.gang.rank import Rank, RankDeps
from daybreak_server.engines.rank.config import GangConfig
from daybreak_server.engines.rank.watchdog import Watchdog
from daybreak_server.ports.blobs import Blobs
from daybreak_server.ports.queue import WorkQueue
from daybreak_server.ports.store_errors import StoreError
from daybreak_server.settings.tree import PoolSettings, Settings
from daybreak_server.workloads import registry
from daybreak_server.workloads.base import Workload, WorkloadSpec

if TYPE_CHECKING:
    from fastapi import FastAPI

    from daybreak_server.api.services import Services
    from daybreak_server.engines.gang.rendezvous import RendezvousStore


_log = logging.getLogger(__name__)


class NoStoreError(ValueError):
    """The settings name no Redis, and this process does not start one."""


def redis_endpoint(settings: Settings) -> Endpoint:
    """Where the store is, and how it is reached. :raises NoStoreError: when the settings do not say."""
    if settings.redis.url is None:
        raise NoStoreError(
            "no Redis: set DAYBREAK_REDIS__URL, or use `daybreakd up` or `daybreakd dev`, which start one"
        )
    return Endpoint.configured(settings.redis)


def build_queue(settings: Settings, pool: str) -> WorkQueue:
    """What the leaders of a pool's groups ask."""
    return RedisQueue(
        redis_endpoint(settings),
        pool=pool,
        prefix=settings.redis.prefix,
        lease_s=settings.pools[pool].lease.lease_s,
        timeout_s=settings.redis.timeout_s,
    )


def sharing_queue(settings: Settings, pool: str) -> Callable[[], WorkQueue]:
    """Opens one queue for all groups of ``pool`` that this process has: what they settle at once shares a call."""
    return shared_queue_factory(
        lambda: SharedQueue(
            redis_endpoint(settings),
            pool=pool,
            prefix=settings.redis.prefix,
            lease_s=settings.pools[pool].lease.lease_s,
            timeout_s=settings.redis.timeout_s,
        )
    )


def build_blobs(settings: Settings) -> Blobs:
    """Where files are."""
    return open_blobs(settings.artifacts)


def build_store(settings: Settings) -> RedisStore:
    """The store alone, as the operator asks it."""
    redis = settings.redis
    return RedisStore(redis_endpoint(settings), prefix=redis.prefix, timeout_s=redis.timeout_s)


def build_services(settings: Settings) -> Services:
    """What the HTTP app is made of."""
    from daybreak_server.api.services import Services

    where, prefix, timeout_s = redis_endpoint(settings), settings.redis.prefix, settings.redis.timeout_s
    store = RedisStore(
        where,
        prefix=prefix,
        timeout_s=timeout_s,
        max_queued={name: pool.max_queued for name, pool in settings.pools.items()},
    )
    events = RedisEvents(where, prefix=prefix, timeout_s=timeout_s)

    async def close() -> None:
        await events.close()
        await store.close()

    return Services(
        settings=settings,
        store=store,
        events=events,
        housekeeper=store,
        blobs=build_blobs(settings),
        close=close,
    )


def build_app(settings: Settings) -> FastAPI:
    """The HTTP app, with everything behind it."""
    from daybreak_server.api.app import build_app as compose

    return compose(build_services(settings))


def workload_spec(pool: PoolSettings) -> WorkloadSpec[Any]:
    """The workload of a pool, as the API sees it."""
    return registry.spec(pool.workload, kind=pool.kind)


def gang_config(settings: Settings, pool: str, *, device: str = "cpu") -> GangConfig:
    """What a group must know of its pool. ``device`` is what ``auto`` has come to."""
    of = settings.pools[pool]
    return GangConfig(
        pool=pool,
        ranks=of.ranks,
        device=device if of.device == "auto" else of.device,
        threads=max(1, int(of.cpus_per_rank)),
        options=of.workload_options,
        scratch=scratch_folder(settings),
        lease_s=of.lease.lease_s,
        stall_s=of.lease.stall_s,
        load_stall_s=of.lease.load_stall_s,
        checkpoint_s=of.checkpoint_s,
        progress_s=of.progress_s,
        drain_s=of.drain_s,
    )


def scratch_folder(settings: Settings) -> Path:
    """Where the work folders of attempts are made."""
    return settings.data_dir / "scratch"


def build_rank(
    settings: Settings,
    pool: str,
    *,
    rank: int = 0,
    device: str = "cpu",
    on_broken: Callable[[Cause], None],
    board: RendezvousStore | None = None,
    host: str = "127.0.0.1",
    label: str = "",
    wake: dict[str, float] | None = None,
    guarded: bool = False,
    queue: Callable[[], WorkQueue] | None = None,
) -> Rank:
    """One rank of a group of ``pool``; ``start`` it.

    ``queue``: opens the queue, where several groups of this process share one (:func:`sharing_queue`).
    ``guarded``: a leader gets a process that keeps its lease when its threads cannot run, and that kills this
    process when its work stands still: only for a process that is the rank's alone.
    """
    spec = workload_spec(settings.pools[pool])
    outside = RankDeps(
        queue=queue or (lambda: build_queue(settings, pool)),
        blobs=lambda: build_blobs(settings),
        workload=lambda: _implementation(spec),
        on_broken=on_broken,
        board=board,
        host=host,
        label=label,
        watchdog=(lambda: build_guard(settings, pool)) if guarded else None,
        fetch=model_fetch(settings, pool),
        tell=lambda why: tell_failure(settings, pool, rank=rank, why=why),
        wake=wake or {},
    )
    config = gang_config(settings, pool, device=device)
    return BUILDERS[PoolKind(spec.kind)](spec, config, outside, rank)


def _build_gang_rank(spec: WorkloadSpec[Any], config: GangConfig, outside: RankDeps, rank: int) -> Rank:
    return Rank(spec, config, outside, rank=rank)


BUILDERS: Mapping[PoolKind, Callable[[WorkloadSpec[Any], GangConfig, RankDeps, int], Rank]] = {
    PoolKind.JOBS: _build_gang_rank
}
"""What builds a rank of a group, by the kind of its pool."""


def model_fetch(settings: Settings, pool: str) -> Callable[[Callable[[int, int], None]], str] | None:
    """Brings the pool's model to this node; ``None`` where it is a folder that is there already."""
    url = settings.pools[pool].model
    if url is None or not url.startswith("s3://"):
        return None

    def fetch(told: Callable[[int, int], None]) -> str:
        from daybreak_server.adapters.blobs.model_cache import ModelCache
        from daybreak_server.adapters.blobs.model_source import S3Model  # boto3 takes half a second to import

        model = S3Model(url, settings.artifacts.s3)
        return str(ModelCache(settings.model_cache).get(model, told=told))

    return fetch


def tell_failure(settings: Settings, pool: str, *, rank: int, why: Cause) -> None:
    """Show with the pool why a rank cannot go on; a store that cannot be told is only logged."""
    _log.error("rank %d of %s: %s", rank, pool, why)
    with contextlib.closing(build_queue(settings, pool)) as queue:
        try:
            queue.failed(why, rank=rank)
        except StoreError as exc:
            _log.warning("the pool cannot be told: %s", exc)


def build_guard(settings: Settings, pool: str) -> Watchdog:
    """The process that keeps a leader's lease; not started yet."""
    command = (sys.executable, "-m", "daybreak_server.entrypoints.watchdog")
    told = {
        "where": asdict(redis_endpoint(settings)),
        "pool": pool,
        "prefix": settings.redis.prefix,
        "lease_s": settings.pools[pool].lease.lease_s,
        "timeout_s": settings.redis.timeout_s,
    }
    return Watchdog(command, told=told)


def _implementation(spec: WorkloadSpec[Any]) -> Workload[Any]:
    return registry.implementation(spec)
