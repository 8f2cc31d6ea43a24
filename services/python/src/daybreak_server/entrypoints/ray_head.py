"""Ray as a part of ``up``: one process that starts a local Ray with the applications, and watches both.

It ends when Ray has died, and the supervisor starts it again. What it sees it writes to ``ray.json``.
"""

from __future__ import annotations

import json
import logging
import shutil
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import ray
from ray import serve

from daybreak_server.adapters.ray import cluster
from daybreak_server.entrypoints import serve_app
from daybreak_server.entrypoints.gateway import log_to_stderr
from daybreak_server.entrypoints.instance import read_settings, write_whole
from daybreak_server.settings import Settings

_log = logging.getLogger(__name__)
_OBJECT_STORE_BYTES = 80_000_000
"""Ray's least: no tensor travels through it."""
_LOOK_S = 0.5


class RayHead:
    """A local Ray with Daybreak's applications."""

    def __init__(self, settings: Settings, *, folder: Path, api_port: int, report: Path) -> None:
        self._settings = settings
        self._folder = folder
        self._api_port = api_port
        self._report_file = report
        self._going = threading.Event()
        self._api_deployed = False
        self._told: Any = None

    def stop(self) -> None:
        """End soon."""
        self._going.set()

    def run(self) -> int:
        """Until stopped (0), or until Ray has died (1)."""
        self._tell(phase="ray")
        shutil.rmtree(self._folder, ignore_errors=True)
        ray.init(
            address="local",
            namespace="serve",
            include_dashboard=False,
            num_cpus=self._cpus(),
            object_store_memory=_OBJECT_STORE_BYTES,
            _temp_dir=str(self._folder),
            log_to_driver=False,
            configure_logging=False,
        )
        for number in (signal.SIGTERM, signal.SIGINT):  # ray.init takes SIGTERM for itself
            signal.signal(number, self._on_signal)
        self._tell(phase="serve")
        try:
            gpus = cluster.cluster_has_gpus()
            serve.start(
                proxy_location="HeadOnly",
                http_options={"host": "127.0.0.1", "port": self._api_port},
            )
            self._deploy(serve_app.targets(self._settings, gpus=gpus))
            return self._watch()
        finally:
            self._tell(phase="stopping")
            self._shut_down()

    def _deploy(self, targets: list[Any]) -> None:
        serve.run_many(
            targets, wait_for_ingress_deployment_creation=False, wait_for_applications_running=False
        )

    def _cpus(self) -> int:
        """As many as the groups ask for: on one machine it is its owner who decides what runs there."""
        wanted = sum(pool.groups * pool.ranks * pool.cpus_per_rank for pool in self._settings.pools.values())
        return max(1, round(wanted + 0.5))

    def _watch(self) -> int:
        while not self._going.wait(_LOOK_S):
            dead = self._dead()
            if dead:
                _log.error("Ray has lost %s", ", ".join(dead))
                return 1
            status = serve.status()
            self._tell(
                phase="running",
                apps={name: _shown(app) for name, app in status.applications.items()},
                failures=cluster.failures(),
            )
            if set(status.applications) < self._wanted():
                _log.warning("applications are missing: deploying them again")
                self._deploy(serve_app.targets(self._settings, gpus=cluster.cluster_has_gpus()))
        return 0

    def _wanted(self) -> set[str]:
        return {name for name, pool in self._settings.pools.items() if pool.groups} | {serve_app.API_APP}

    def _dead(self) -> list[str]:
        node = ray._private.worker._global_node
        return [name for name, _process in node.dead_processes()] if node is not None else ["its node"]

    def _shut_down(self) -> None:
        """Groups hand back first, then Ray ends."""
        try:
            serve.shutdown()
        except Exception as exc:
            _log.warning("Serve did not end in order: %s", exc)
        ray.shutdown()

    def _tell(self, **state: Any) -> None:
        if state != self._told:
            self._told = state
            write_whole(self._report_file, json.dumps({**state, "at": time.time()}))

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
    """``python -m daybreak_server.entrypoints.ray_head SETTINGS FOLDER API_PORT REPORT``."""
    log_to_stderr()
    settings, folder, port, report = sys.argv[1:5]
    head = RayHead(
        read_settings(Path(settings)), folder=Path(folder), api_port=int(port), report=Path(report)
    )
    return head.run()


if __name__ == "__main__":
    sys.exit(main())
