"""The Ray Serve applications: ``api`` (the HTTP app), and one for each pool.

A group is a Serve gang, and each rank is a replica (:class:`RankReplica`). Serve starts, places and restarts gangs as a
whole. Only the operator changes the number of gangs, never Serve's autoscaler.

Serve gives up on a deployment whose replicas fail in their constructor a few times. So the constructor never raises an
error of a rank. While a rank waits for Redis, its peers or its model, its replica is healthy. A rank that cannot
continue reports the reason and exits; the health check then makes Serve restart the whole gang. A rank that never
loaded its model waits before it exits, because it would probably fail again. This wait grows with each such failure in
a row.

``deploy`` deploys the applications to a running Ray cluster. ``build_api`` and ``build_pool`` are for Serve's config
files: ``import_path: daybreak_server.entrypoints.ray_serve:build_pool`` with ``args: {pool: video}``.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve.config import GangSchedulingConfig

from daybreak_server import wiring
from daybreak_server.adapters.ray import cluster
from daybreak_server.adapters.ray.ray_meter import RayMeter
from daybreak_server.api.background.gc_tuning import tune_gc
from daybreak_server.domain.causes import Cause
from daybreak_server.domain.names import API_APPLICATION, deployment_name
from daybreak_server.domain.pools import WakePhase
from daybreak_server.engines.common.error_causes import cause_of
from daybreak_server.engines.common.start_backoff import start_backoff_s
from daybreak_server.engines.ranks.rank_lifecycle import Rank
from daybreak_server.entrypoints.ray_manager import ensure_manager
from daybreak_server.observability.logging import log_from_ray_worker
from daybreak_server.settings.address_format import url_of
from daybreak_server.settings.tree import PoolSettings, Settings, load_settings

_log = logging.getLogger(__name__)
VIDEO_POOL = "video"
_STREAM_MARGIN = 1000
_DRAIN_MARGIN_S = 5.0
_HEALTH_PERIOD_S = 1.0
"""Short, because Serve restarts a gang only after a health check has found a dead rank."""
_HEALTH_TIMEOUT_S = 30.0
"""The shortest timeout of a health check. It is long, because the group itself finds a hung rank, and a busy machine
must not cause a restart."""
_SHUTDOWN_S = 25.0
"""How long a group may take to release its task when its replicas are stopped."""
_DEREGISTER_S = 3.0
"""How long to wait for the work thread to delete the record of its group. The thread may hang in a collective."""
_EXIT_CODE = 70


class RankReplica:
    """One rank of a group of any pool: a Serve replica whose gang is one process group.

    The rank works on a thread of its own, so that ``check_health`` can answer during a step.
    """

    def __init__(self, settings: str, pool: str) -> None:
        self._settings = Settings.model_validate_json(settings)
        log_from_ray_worker(self._settings.log)
        gang = serve.get_replica_context().gang_context
        assert gang is not None, "Serve must run each group as a gang"
        self._pool, self._number = pool, gang.rank
        self._rank: Rank | None = None
        self._failing = False
        try:
            self._rank = self._build(gang)
        except Exception as exc:  # for example, the workload is not installed here
            _log.exception("rank %d of pool %s cannot be built", self._number, pool)
            threading.Thread(target=self._fail, args=(cause_of(exc),), name="fail").start()
            return
        self._rank.start()
        self._watch = cluster.watch_draining(self._rank.ask_to_leave)

    def _build(self, gang: Any) -> Rank:
        return wiring.build_rank(
            self._settings,
            self._pool,
            rank=gang.rank,
            device="cuda" if cluster.has_gpu() else "cpu",
            on_broken=self._fail,
            rendezvous=cluster.KvRendezvousStore(gang.gang_id),
            host=cluster.node_ip(),
            label=cluster.node_label(),
            wake={WakePhase.RAY: round(_process_age_s(), 3)},
            with_watchdog=True,
            meter=RayMeter(),
        )

    def check_health(self) -> None:
        """Called by Serve, which restarts the gang after three failures in a row.

        A failing rank that waits before it exits counts as healthy, so that Serve does not cut the wait short.

        :raises RuntimeError: with the reason, if the rank is unhealthy.
        """
        if self._failing:
            return
        why = self._rank.unhealthy_reason() if self._rank is not None else None
        if why is not None:
            raise RuntimeError(why)

    def reconfigure(self, _config: Any) -> None:
        """Do nothing. Serve calls this on running replicas when other gangs start or stop."""

    def __call__(self) -> dict[str, Any]:
        """Return which rank this is, for callers with a deployment handle."""
        record = self._rank.record if self._rank is not None else None
        return {"pool": self._pool, "rank": self._number, "group": record.id if record is not None else None}

    def __del__(self) -> None:
        """Release the task and stop, because Serve stops this replica."""
        rank = getattr(self, "_rank", None)
        if rank is not None:
            rank.stop(timeout_s=_SHUTDOWN_S - 3)

    def _fail(self, why: Cause) -> None:
        """Report why this rank cannot continue, and exit. Serve then restarts the whole gang."""
        self._failing = self._rank is None or not self._rank.loaded
        failures = 1
        try:
            cluster.record_failure(self._pool, rank=self._number, cause=why)
            if self._failing:
                failures = cluster.record_start_failure(self._pool, rank=self._number)
        except Exception as exc:  # Ray itself may be what failed
            _log.warning(
                "cannot report to Ray why rank %d of pool %s failed: %s", self._number, self._pool, exc
            )
        wiring.report_failure(self._settings, self._pool, rank=self._number, why=why)
        if self._failing:
            delay_s = start_backoff_s(failures)
            _log.warning("rank %d of pool %s restarts after %g s", self._number, self._pool, delay_s)
            time.sleep(delay_s)
        elif self._rank is not None:
            self._rank.wait_ended(_DEREGISTER_S)
        os._exit(_EXIT_CODE)


class VideoGenerator(RankReplica):
    """A rank of the pool ``video``. This subclass exists only for its name, which the documentation uses."""


class APIEntrypoint:
    """The HTTP app as a Serve deployment. It is the same app as the gateway's."""

    def __init__(self, settings: str) -> None:
        self._settings = Settings.model_validate_json(settings)
        log_from_ray_worker(self._settings.log)

    def __serve_build_asgi_app__(self) -> Any:
        """Build the app; Serve calls this on the replica."""
        ensure_manager(self._settings)
        app = wiring.build_app(self._settings, meter=RayMeter())
        tune_gc()
        return app


def api_app(settings: Settings) -> Any:
    """The application ``api``."""
    deployment = serve.deployment(
        serve.ingress()(APIEntrypoint),
        name="APIEntrypoint",
        # With Serve's default of 5, five open streams would block all other requests.
        max_ongoing_requests=settings.http.max_streams + _STREAM_MARGIN,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=settings.http.drain_s + _DRAIN_MARGIN_S,
    )
    return deployment.bind(settings.model_dump_json())


def pool_app(settings: Settings, pool: str, *, groups: int | None = None, gpus: bool = False) -> Any:
    """The application of one pool: ``groups`` gangs of its ranks (default: as in the settings).

    ``gpus``: whether ``device: auto`` means a GPU.
    """
    options = settings.pools[pool]
    on_gpu = options.device == "cuda" or (options.device == "auto" and gpus)
    deployment = serve.deployment(
        VideoGenerator if pool == VIDEO_POOL else RankReplica,
        name=deployment_name(pool),
        num_replicas=options.ranks * (options.groups if groups is None else groups),
        gang_scheduling_config=GangSchedulingConfig(gang_size=options.ranks),
        ray_actor_options=_resources(options, on_gpu=on_gpu),
        health_check_period_s=_HEALTH_PERIOD_S,
        # A step that holds Python's lock (GIL) may keep a rank from answering for up to stall_s. Only three failed
        # checks in a row restart a gang, so half of stall_s is enough for one check.
        health_check_timeout_s=max(_HEALTH_TIMEOUT_S, options.lease.stall_s / 2),
        graceful_shutdown_timeout_s=_SHUTDOWN_S,
        graceful_shutdown_wait_loop_s=0.1,
        # A gang that waits for nodes must not block the rollout of other gangs.
        rolling_update_percentage=1.0,
    )
    return deployment.bind(settings.model_dump_json(), pool)


def _resources(pool: PoolSettings, *, on_gpu: bool) -> dict[str, Any]:
    return {"num_cpus": pool.cpus_per_rank, **({"num_gpus": pool.gpus_per_rank} if on_gpu else {})}


def api_target(settings: Settings) -> Any:
    """The application ``api``, for ``serve.run_many``."""
    return serve.RunTarget(target=api_app(settings), name=API_APPLICATION, route_prefix="/")


def targets(settings: Settings, *, gpus: bool, api: bool = True) -> list[Any]:
    """All applications, for ``serve.run_many``. Groups are scaled from outside (`/scale`), never by Serve itself."""
    pools = [
        serve.RunTarget(
            target=pool_app(settings, name, gpus=gpus),
            name=name,
            route_prefix=None,
            external_scaler_enabled=True,
        )
        for name, pool in settings.pools.items()
        if pool.groups
    ]
    return [*pools, api_target(settings)] if api else pools


def deploy(settings: Settings, *, address: str = "auto") -> int:
    """Deploy the applications to a running Ray cluster, and return while Serve starts them."""
    ray.init(address=address, log_to_driver=False, namespace="serve")
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": settings.http.host, "port": settings.http.port or 8000},
    )
    serve.run_many(
        targets(settings, gpus=cluster.cluster_has_gpus()),
        wait_for_ingress_deployment_creation=False,
        wait_for_applications_running=False,
    )
    url = url_of(settings.http.host, settings.http.port or 8000)
    sys.stdout.write(
        f"deployed the API at {url} and the pools {', '.join(settings.pools)}\n"
        "next: `daybreak pools` shows when the groups are ready\n"
    )
    return 0


def build_api(args: Mapping[str, Any]) -> Any:
    """The application ``api``, for Serve's config files. ``args``: ``config`` (a YAML file; default: environment)."""
    return api_app(_settings(args))


def build_pool(args: Mapping[str, Any]) -> Any:
    """The application of a pool, for Serve's config files. ``args``: ``pool``, ``groups``, ``gpus``, ``config``."""
    return pool_app(
        _settings(args),
        str(args["pool"]),
        groups=int(args["groups"]) if "groups" in args else None,
        gpus=bool(args.get("gpus", False)),
    )


def _settings(args: Mapping[str, Any]) -> Settings:
    return load_settings(Path(str(args["config"])) if "config" in args else None)


def _process_age_s() -> float:
    """Seconds since this process started. The group reports them as the duration of the phase ``ray``."""
    try:
        ticks = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0
    return max(0.0, uptime - ticks / os.sysconf("SC_CLK_TCK"))
