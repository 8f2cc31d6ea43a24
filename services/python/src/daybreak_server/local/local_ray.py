"""Ray as a part of ``up``: one process that starts a local Ray with the applications, and watches both.

It ends when Ray has died, and the supervisor starts it again. What it sees it writes to ``ray.json``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from ray import serve

from daybreak_server import wiring
from daybreak_server.adapters.ray import cluster
from daybreak_server.adapters.ray.local_cluster import LocalRay
from daybreak_server.domain.pools import PoolView
from daybreak_server.entrypoints import ray_serve
from daybreak_server.local.instance import free_port, write_atomically
from daybreak_server.observability.logging import log_to_stderr
from daybreak_server.ports.store_errors import StoreError
from daybreak_server.settings.handover import read_settings
from daybreak_server.settings.tree import Settings

_log = logging.getLogger(__name__)
_LOOK_S = 0.5
_LOOK_AT_NODE_S = 0.1
_API_LATEST_S = 120.0
_SERVE_LATEST_S = 180.0


class RayHead:
    """A local Ray with Daybreak's applications."""

    def __init__(self, settings: Settings, *, folder: Path, api_port: int, report: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._api_port = api_port
        self._report_file = report
        self._going = threading.Event()
        self._gpus = False
        self._started = time.monotonic()
        self._told: Any = None

    def stop(self) -> None:
        """End soon."""
        self._going.set()

    def run(self) -> int:
        """Until stopped (0), or until Serve is gone for good (1). When Ray has died, the process ends with 1."""
        self._tell(phase="ray")
        shutil.rmtree(self._folder, ignore_errors=True)
        node = LocalRay(
            self._folder,
            cpus=self._cpus(),
            free_port=free_port,
            allow_fast_start=self._settings.ray.fast_start,
        )
        self._watch_node(node)
        for number in (signal.SIGTERM, signal.SIGINT):  # Ray takes SIGTERM for itself
            signal.signal(number, self._on_signal)
        self._tell(phase="serve")
        try:
            self._start_serve()
            self._gpus = cluster.cluster_has_gpus()
            # The groups first: users reach the gateway, and the same app on Ray can come when there is time.
            self._deploy(ray_serve.targets(self._settings, gpus=self._gpus, api=False))
            return self._watch()
        finally:
            self._tell(phase="stopping")
            self._shut_down(node)

    def _start_serve(self) -> None:
        try:
            serve.start(
                proxy_location="HeadOnly",
                http_options={"host": "127.0.0.1", "port": self._api_port},
            )
        except Exception as exc:
            # Serve waits a minute for its proxy, which nobody needs before the groups are there; it goes on trying.
            _log.warning("Serve's proxy is late: %s", exc)

    def _deploy(self, targets: list[Any]) -> None:
        if not targets:  # every pool has `groups: 0`: Serve takes an empty list for a mistake
            return
        serve.run_many(
            targets, wait_for_ingress_deployment_creation=False, wait_for_applications_running=False
        )

    def _cpus(self) -> int:
        """As many as the groups ask for: on one machine it is its owner who decides what runs there."""
        wanted = sum(pool.groups * pool.ranks * pool.cpus_per_rank for pool in self._settings.pools.values())
        return max(1, round(wanted + 0.5))

    def _watch_node(self, node: LocalRay) -> None:
        """End at once when a part of Ray has died: calls to what is left of it wait for a minute.

        Nothing is lost by it: whoever supervises this process ends what is left, and starts it all again.
        """

        def look() -> None:
            while not self._going.wait(_LOOK_AT_NODE_S):
                dead = node.dead()
                if dead:
                    _log.error("Ray has lost %s", ", ".join(dead))
                    os._exit(1)

        threading.Thread(target=look, name="node-watch", daemon=True).start()

    def _watch(self) -> int:
        """Look at Serve until stopped. It may be away for a while: Ray starts its controller again."""
        heard = time.monotonic()
        while not self._going.wait(_LOOK_S):
            try:
                self._look_at_serve()
            except Exception as exc:
                away_s = time.monotonic() - heard
                if away_s > _SERVE_LATEST_S:
                    _log.error("Serve has not answered for %.0f s: %s", away_s, exc)
                    return 1
                _log.warning("Serve does not answer: %s", exc)
            else:
                heard = time.monotonic()
        return 0

    def _look_at_serve(self) -> None:
        status = serve.status()
        self._tell(
            phase="running",
            apps={name: _shown(app) for name, app in status.applications.items()},
            failures=cluster.failures(),
        )
        self._complete(set(status.applications))

    def _complete(self, have: set[str]) -> None:
        """Deploy what is missing, and the app when the groups have come up (or after a while)."""
        pools = {name for name, pool in self._settings.pools.items() if pool.groups}
        if not pools <= have:
            _log.warning("%s is missing: deploying again", ", ".join(sorted(pools - have)))
            self._deploy(ray_serve.targets(self._settings, gpus=self._gpus, api=False))
        late = time.monotonic() - self._started > _API_LATEST_S
        if ray_serve.API_APP not in have and (late or self._groups_are_up()):
            self._deploy([ray_serve.api_target(self._settings)])

    def _groups_are_up(self) -> bool:
        """Whether every group has registered as ready; ``False`` also where the store cannot tell."""
        try:
            views = asyncio.run(self._views())
        except StoreError:
            return False
        pools = self._settings.pools
        return all(sum(one.state.ready for one in view.groups) >= pools[view.name].groups for view in views)

    async def _views(self) -> list[PoolView]:
        services = wiring.build_services(self._settings)
        try:
            return [await services.store.pool(name) for name in self._settings.pools]
        finally:
            await services.close()

    def _shut_down(self, node: LocalRay) -> None:
        """GroupStore hand back first, then Ray ends."""
        try:
            serve.shutdown()
        except Exception as exc:
            _log.warning("Serve did not end in order: %s", exc)
        node.stop()

    def _tell(self, **state: Any) -> None:
        if state != self._told:
            self._told = state
            write_atomically(self._report_file, json.dumps({**state, "at": time.time()}))

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.stop()


def _shown(app: Any) -> Mapping[str, Any]:
    return {
        "status": app.status.value,
        "message": app.message,
        "deployments": {
            name: {"status": one.status.value, "message": one.message, "replicas": dict(one.replica_states)}
            for name, one in app.deployments.items()
        },
    }


def main() -> int:
    """``python -m daybreak_server.local.local_ray SETTINGS FOLDER API_PORT REPORT``."""
    log_to_stderr()
    settings, folder, port, report = sys.argv[1:5]
    head = RayHead(
        read_settings(Path(settings)), folder=Path(folder), api_port=int(port), report=Path(report)
    )
    return head.run()


if __name__ == "__main__":
    sys.exit(main())
