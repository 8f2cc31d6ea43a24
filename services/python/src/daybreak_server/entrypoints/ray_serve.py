"""The Ray Serve applications: ``api`` (the HTTP app), and one for each pool (its groups, as Serve gangs).

``deploy`` puts them on a running Ray. ``build_api`` and ``build_pool`` are for Serve's own config files:
``import_path: daybreak_server.entrypoints.ray_serve:build_pool`` with ``args: {pool: video}``.
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
from daybreak_server.api.background.gc_tuning import tune_gc
from daybreak_server.domain.causes import Cause
from daybreak_server.domain.names import API_APPLICATION, deployment_name
from daybreak_server.domain.pools import WakePhase
from daybreak_server.engines.gang.rank import Rank
from daybreak_server.engines.rank.causes import cause_of
from daybreak_server.observability.logging import log_to_stderr
from daybreak_server.settings.addresses import url_of
from daybreak_server.settings.tree import PoolSettings, Settings, load_settings

_log = logging.getLogger(__name__)
API_APP = API_APPLICATION
VIDEO_POOL = "video"
_STREAM_MARGIN = 1000
_HEALTH_PERIOD_S = 1.0
"""A rank that died is seen by the next check, and nothing else makes Serve start the gang anew."""
_HEALTH_TIMEOUT_S = 30.0
"""At least. Generous: what hangs is found by the group itself, and a busy machine is no reason to restart it."""
_LEAVE_S = 25.0
"""How long a group may take to hand back when its replicas are stopped."""
_PAUSES_S = (3.0, 6.0, 12.0, 24.0, 48.0)
"""Before a rank that never had its model ends, by how often in a row: it would probably fail the same way again."""
_LAST_WORDS_S = 3.0
"""For the thread that works to take its group's record away; it may hang in a collective for ever."""
_EXIT_CODE = 70


def pause_before_end_s(times: int) -> float:
    """Seconds that a rank without a model waits before it ends for the ``times``-th time in a row."""
    return _PAUSES_S[min(times, len(_PAUSES_S)) - 1]


class RankReplica:
    """One rank of a group: a Serve replica whose gang is one process group. It serves any pool.

    Its work runs on a thread of its own, so that ``check_health`` is always answered. It never raises while
    it is built: a replica that fails to start a few times is given up by Serve for good, while one that
    waits for Redis, for its peers or for its model is only not ready yet.
    """

    def __init__(self, settings: str, pool: str) -> None:
        log_to_stderr()
        gang = serve.get_replica_context().gang_context
        assert gang is not None, "a group is a gang"
        self._pool, self._rank = pool, gang.rank
        self._settings = Settings.model_validate_json(settings)
        self._member: Rank | None = None
        self._ending = False
        try:
            self._member = self._build(gang)
        except Exception as exc:  # a workload that is not installed here
            _log.exception("rank %d of %s cannot be made", self._rank, pool)
            threading.Thread(target=self._end, args=(cause_of(exc),), name="end").start()
            return
        self._member.start()
        self._watch = cluster.watch_draining(self._member.ask_to_leave)

    def _build(self, gang: Any) -> Rank:
        return wiring.build_rank(
            self._settings,
            self._pool,
            rank=gang.rank,
            device="cuda" if cluster.has_gpu() else "cpu",
            on_broken=self._end,
            board=cluster.KvRendezvousStore(gang.gang_id),
            host=cluster.node_ip(),
            label=cluster.node_label(),
            wake={WakePhase.RAY: round(_process_age_s(), 3)},
            guarded=True,
        )

    def check_health(self) -> None:
        """Asked by Serve; three failures in a row end the whole gang. A rank that pauses before it ends is left to."""
        if self._ending:
            return
        why = self._member.health() if self._member is not None else None
        if why is not None:
            raise RuntimeError(why)

    def reconfigure(self, _config: Any) -> None:
        """Serve calls this on running replicas when other gangs come or go; nothing follows from it."""

    def __call__(self) -> dict[str, Any]:
        """Who this is; a deployment handle may ask."""
        record = self._member.record if self._member is not None else None
        return {"pool": self._pool, "rank": self._rank, "group": record.id if record is not None else None}

    def __del__(self) -> None:
        """Serve stops this replica: hand back and leave."""
        member = getattr(self, "_member", None)
        if member is not None:
            member.stop(timeout_s=_LEAVE_S - 3)

    def _end(self, why: Cause) -> None:
        """This rank cannot go on: end the process, and Serve starts the whole gang anew."""
        self._ending = self._member is None or not self._member.loaded
        times = 1
        try:
            cluster.tell_failure(self._pool, rank=self._rank, why=why)
            if self._ending:
                times = cluster.record_start_failure(self._pool, rank=self._rank)
        except Exception as exc:  # the cluster itself may be what broke
            _log.warning("cannot tell why: %s", exc)
        wiring.tell_failure(self._settings, self._pool, rank=self._rank, why=why)
        if self._ending:
            pause_s = pause_before_end_s(times)
            _log.warning("rank %d of %s is started again after %g s", self._rank, self._pool, pause_s)
            time.sleep(pause_s)
        elif self._member is not None:
            self._member.wait_ended(_LAST_WORDS_S)
        os._exit(_EXIT_CODE)


class VideoGenerator(RankReplica):
    """A rank of the pool ``video``, by the name under which people know it."""


class APIEntrypoint:
    """The HTTP app as a Serve deployment: the same as the gateway's."""

    def __init__(self, settings: str) -> None:
        log_to_stderr()
        self._settings = Settings.model_validate_json(settings)

    def __serve_build_asgi_app__(self) -> Any:
        """Called by Serve on the replica."""
        app = wiring.build_app(self._settings)
        tune_gc()
        return app


def api_app(settings: Settings) -> Any:
    """The application ``api``."""
    deployment = serve.deployment(
        serve.ingress()(APIEntrypoint),
        name="APIEntrypoint",
        # Serve's default is 5: then the sixth stream would make every other request wait.
        max_ongoing_requests=settings.http.max_streams + _STREAM_MARGIN,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=15,
    )
    return deployment.bind(settings.model_dump_json())


def pool_app(settings: Settings, pool: str, *, groups: int | None = None, gpus: bool = False) -> Any:
    """The application of one pool: ``groups`` gangs (the settings', when ``None``) of its ranks.

    ``gpus``: whether ``device: auto`` means a GPU here.
    """
    of = settings.pools[pool]
    on_gpu = of.device == "cuda" or (of.device == "auto" and gpus)
    deployment = serve.deployment(
        VideoGenerator if pool == VIDEO_POOL else RankReplica,
        name=deployment_name(pool),
        num_replicas=of.ranks * (of.groups if groups is None else groups),
        gang_scheduling_config=GangSchedulingConfig(gang_size=of.ranks),
        ray_actor_options=_resources(of, on_gpu=on_gpu),
        health_check_period_s=_HEALTH_PERIOD_S,
        # Three checks in a row must fail. A step may keep a rank from answering for as long as it may take.
        health_check_timeout_s=max(_HEALTH_TIMEOUT_S, of.lease.stall_s / 2),
        graceful_shutdown_timeout_s=_LEAVE_S,
        graceful_shutdown_wait_loop_s=0.1,
        # A gang that still waits for its nodes must not hold back the rollout of the others.
        rolling_update_percentage=1.0,
    )
    return deployment.bind(settings.model_dump_json(), pool)


def _resources(pool: PoolSettings, *, on_gpu: bool) -> dict[str, Any]:
    return {"num_cpus": pool.cpus_per_rank, **({"num_gpus": pool.gpus_per_rank} if on_gpu else {})}


def api_target(settings: Settings) -> Any:
    """The application ``api``, as ``serve.run_many`` takes it."""
    return serve.RunTarget(target=api_app(settings), name=API_APP, route_prefix="/")


def targets(settings: Settings, *, gpus: bool, api: bool = True) -> list[Any]:
    """All applications. GroupStore are scaled from outside (`/scale`), never by Serve's own queues."""
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
    """Put the applications on a running Ray and return; Serve goes on by itself."""
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
        f"deployed: the API will answer on {url}, pools: "
        f"{', '.join(settings.pools)}\nnext: `daybreak pools` shows each group's way to ready\n"
    )
    return 0


def build_api(args: Mapping[str, Any]) -> Any:
    """For Serve's config files; ``args``: ``config`` (a YAML file), else the head's environment."""
    return api_app(_settings(args))


def build_pool(args: Mapping[str, Any]) -> Any:
    """For Serve's config files; ``args``: ``pool``, ``groups``, ``gpus``, ``config``."""
    return pool_app(
        _settings(args),
        str(args["pool"]),
        groups=int(args["groups"]) if "groups" in args else None,
        gpus=bool(args.get("gpus", False)),
    )


def _settings(args: Mapping[str, Any]) -> Settings:
    return load_settings(Path(str(args["config"])) if "config" in args else None)


def _process_age_s() -> float:
    """Seconds that this process lives already: what Ray took to bring the rank up."""
    try:
        ticks = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
        uptime = float(Path("/proc/uptime").read_text().split()[0])
    except (OSError, ValueError, IndexError):
        return 0.0
    return max(0.0, uptime - ticks / os.sysconf("SC_CLK_TCK"))
