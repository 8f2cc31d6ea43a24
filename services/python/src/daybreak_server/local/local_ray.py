"""The process that runs Ray for ``up``: it starts a local Ray, deploys the Serve applications, and watches both.

It deploys the pools first, and the app ``api`` once the groups are ready, or after ``_API_DELAY_S``. This app can wait,
because ``up`` also runs a gateway outside Ray, through which users reach the API.

* The main thread polls Serve twice a second, and less often once all applications run, because each answer costs Serve
  and this process some CPU time. The thread writes the status of the applications to ``ray.json`` and deploys those
  that are missing. Serve does not answer while Ray restarts Serve's controller. If Serve does not answer for
  ``_SERVE_TIMEOUT_S``, this process exits.
* A second thread watches Ray's own processes. When one of them dies, this process exits at once.
* The supervisor of ``up`` watches this process. When this process exits, the supervisor starts it again, which also
  restarts Ray.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
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
from daybreak_server.domain.names import API_APPLICATION
from daybreak_server.domain.pools import PoolView
from daybreak_server.entrypoints import ray_serve
from daybreak_server.local.free_ports import free_port
from daybreak_server.local.instance import write_atomically
from daybreak_server.local.observe import write_ray_targets
from daybreak_server.observability.logging import log_to_stderr
from daybreak_server.ports.store_errors import StoreError
from daybreak_server.settings.child_settings import read_settings
from daybreak_server.settings.tree import Settings

_log = logging.getLogger(__name__)
_POLL_S = 0.5
_STEADY_POLL_S = 2.0
"""The pause between polls while all applications run."""
_NODE_POLL_S = 0.1
_API_DELAY_S = 120.0
"""The app ``api`` is deployed after this time, even if not all groups are ready."""
_SERVE_TIMEOUT_S = 180.0


class RayHead:
    """A local Ray head with Daybreak's applications."""

    def __init__(
        self, settings: Settings, *, folder: Path, api_port: int, report: Path, metrics_targets: Path
    ) -> None:
        self._settings = settings
        self._folder = folder
        self._api_port = api_port
        self._report_file = report
        self._metrics_targets = metrics_targets
        self._stopping = threading.Event()
        self._gpus = False
        self._started = time.monotonic()
        self._reported: Any = None

    def stop(self) -> None:
        """Make ``run`` return soon."""
        self._stopping.set()

    def run(self) -> int:
        """Run until stopped. :returns: 0, or 1 if Serve does not come back. If Ray dies, the process exits with 1."""
        self._report(phase="ray")
        shutil.rmtree(self._folder, ignore_errors=True)
        node = LocalRay(
            self._folder,
            cpus=self._cpus(),
            free_port=free_port,
            allow_fast_start=self._settings.ray.fast_start,
        )
        self._watch_node(node)
        # The handlers are set only now, because Ray sets its own handler when it starts.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_signal)
        self._metrics_targets.parent.mkdir(exist_ok=True)
        write_ray_targets(self._metrics_targets, cluster.metrics_addresses())
        self._report(phase="serve")
        try:
            self._start_serve()
            self._gpus = cluster.cluster_has_gpus()

            self._deploy(ray_serve.targets(self._settings, gpus=self._gpus, api=False))
            return self._watch()
        finally:
            self._report(phase="stopping")
            self._shut_down(node)

    def _start_serve(self) -> None:
        try:
            serve.start(
                proxy_location="HeadOnly",
                http_options={"host": "127.0.0.1", "port": self._api_port},
            )
        except Exception as exc:
            # Serve waits a minute for its proxy and keeps trying after that. Nothing needs the proxy yet.
            _log.warning("Serve's proxy is not ready yet: %s", exc)

    def _deploy(self, targets: list[Any]) -> None:
        if not targets:  # every pool has `groups: 0`; Serve rejects an empty list
            return
        serve.run_many(
            targets, wait_for_ingress_deployment_creation=False, wait_for_applications_running=False
        )

    def _cpus(self) -> int:
        """The CPUs that the groups request. The settings decide what runs here, even if the machine has fewer CPUs.

        The sum may have a fraction, but Ray gets a whole number.
        """
        wanted = sum(pool.groups * pool.ranks * pool.cpus_per_rank for pool in self._settings.pools.values())
        return max(1, math.ceil(wanted))

    def _watch_node(self, node: LocalRay) -> None:
        """Exit at once when a process of Ray has died, because calls to Ray's other processes would block for a minute.

        Nothing is lost: the supervisor ends Ray's other processes and starts Ray again.
        """

        def watch() -> None:
            while not self._stopping.wait(_NODE_POLL_S):
                dead = node.dead()
                if dead:
                    _log.error("processes of Ray have died: %s; Ray restarts", ", ".join(dead))
                    os._exit(1)

        threading.Thread(target=watch, name="node-watch", daemon=True).start()

    def _watch(self) -> int:
        """Poll Serve until stopped. :returns: 0, or 1 if Serve has not answered for ``_SERVE_TIMEOUT_S``."""
        answered_at = time.monotonic()
        pause_s = _POLL_S
        while not self._stopping.wait(pause_s):
            try:
                pause_s = _STEADY_POLL_S if self._poll_serve() else _POLL_S
            except Exception as exc:
                silent_s = time.monotonic() - answered_at
                if silent_s > _SERVE_TIMEOUT_S:
                    _log.error("Serve has not answered for %.0f s, so Ray restarts: %s", silent_s, exc)
                    return 1
                pause_s = _POLL_S
                _log.warning("Serve does not answer: %s", exc)
            else:
                answered_at = time.monotonic()
        return 0

    def _poll_serve(self) -> bool:
        """Report the status and deploy what is missing. :returns: whether all applications run."""
        status = serve.status()
        self._report(
            phase="running",
            apps={name: _as_json(app) for name, app in status.applications.items()},
            failures=cluster.failures(),
        )
        self._deploy_missing(set(status.applications))
        running = {name for name, app in status.applications.items() if app.status == "RUNNING"}
        return self._pools() | {API_APPLICATION} <= running

    def _pools(self) -> set[str]:
        """The pools that have groups. Each is an application."""
        return {name for name, pool in self._settings.pools.items() if pool.groups}

    def _deploy_missing(self, deployed: set[str]) -> None:
        """Deploy pools that are missing, and the app ``api`` once the groups are ready, or after the delay."""
        pools = self._pools()
        if not pools <= deployed:
            _log.warning(
                "pools %s are not deployed on Serve; deploying them", ", ".join(sorted(pools - deployed))
            )
            self._deploy(ray_serve.targets(self._settings, gpus=self._gpus, api=False))
        late = time.monotonic() - self._started > _API_DELAY_S
        if API_APPLICATION not in deployed and (late or self._groups_are_ready()):
            self._deploy([ray_serve.api_target(self._settings)])

    def _groups_are_ready(self) -> bool:
        """Whether every group has registered as ready; ``False`` if the store does not answer."""
        try:
            views = asyncio.run(self._views())
        except StoreError:
            return False
        pools = self._settings.pools
        return all(
            sum(group.state.ready for group in view.groups) >= pools[view.name].groups for view in views
        )

    async def _views(self) -> list[PoolView]:
        services = wiring.build_services(self._settings)
        try:
            return [await services.store.pool(name) for name in self._settings.pools]
        finally:
            await services.close()

    def _shut_down(self, node: LocalRay) -> None:
        """Let the groups release their tasks, then stop Ray."""
        try:
            serve.shutdown()
        except Exception as exc:
            _log.warning("Serve did not shut down cleanly: %s", exc)
        node.stop()

    def _report(self, **state: Any) -> None:
        if state != self._reported:
            self._reported = state
            write_atomically(self._report_file, json.dumps({**state, "at": time.time()}))

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.stop()


def _as_json(app: Any) -> Mapping[str, Any]:
    return {
        "status": app.status.value,
        "message": app.message,
        "deployments": {
            name: {
                "status": deployment.status.value,
                "message": deployment.message,
                "replicas": dict(deployment.replica_states),
            }
            for name, deployment in app.deployments.items()
        },
    }


def main() -> int:
    """``python -m daybreak_server.local.local_ray SETTINGS FOLDER API_PORT REPORT METRICS_TARGETS``."""
    file, folder, port, report, targets = sys.argv[1:6]
    settings = read_settings(Path(file))
    log_to_stderr(settings.log)
    head = RayHead(
        settings, folder=Path(folder), api_port=int(port), report=Path(report), metrics_targets=Path(targets)
    )
    return head.run()


if __name__ == "__main__":
    sys.exit(main())
