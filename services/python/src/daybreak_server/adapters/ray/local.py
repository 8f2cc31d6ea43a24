"""A Ray of one machine, without what only a cluster or a person at its dashboard needs.

``ray.init`` would also start a dashboard, an autoscaler and a log monitor: three Python programs that nobody
here asks, and half of the time that a start takes. Ray has parameters for two of them and none for the first,
so this reaches into its private parts; the lock file pins the version, and a test starts it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import ray
from ray._private import services
from ray._private.parameter import RayParams
from ray._private.resource_isolation_config import ResourceIsolationConfig

from daybreak_server.adapters.ray.prompt_node import PromptNode

_OBJECT_STORE_BYTES = 80_000_000
"""Little more than Ray's least: no tensor travels through it."""
_REGISTER_S = 240.0


class _LeanNode(PromptNode):
    """A head node without an API server."""

    def start_api_server(self, *, include_dashboard: bool | None, raise_on_failure: bool) -> None:
        """It would only serve the dashboard and the REST API."""
        self._webui_url = ""

    def start_ray_processes(self) -> None:
        """Start them, and give them time: Ray itself gives up after 30 s, which a busy machine exceeds."""
        super().start_ray_processes()
        end = time.monotonic() + _REGISTER_S
        while time.monotonic() < end and not self.dead_processes():
            try:
                services.get_node(self.gcs_address, self._node_id)
                return
            except RuntimeError:
                time.sleep(0.1)


class LocalRay:
    """A head node, and this process as its driver. All of it listens on 127.0.0.1 only (see ``up``)."""

    def __init__(self, folder: Path, *, cpus: int, free_port: Callable[[], int]) -> None:
        self._node = _LeanNode(
            RayParams(
                num_cpus=cpus,
                object_store_memory=_OBJECT_STORE_BYTES,
                temp_dir=str(folder),
                include_dashboard=False,
                include_log_monitor=False,
                no_monitor=True,
                # With ports given, the raylet need not wait for its agents to choose some.
                metrics_agent_port=free_port(),
                metrics_export_port=free_port(),
                dashboard_agent_listen_port=free_port(),
                runtime_env_agent_port=free_port(),
                resource_isolation_config=ResourceIsolationConfig(enable_resource_isolation=False),
            ),
            head=True,
            shutdown_at_exit=False,
            spawn_reaper=True,
        )
        ray.init(
            address=self._node.gcs_address,
            namespace="serve",
            _temp_dir=str(folder),
            log_to_driver=False,
            configure_logging=False,
        )

    def dead(self) -> list[str]:
        """Which of its processes have died."""
        return [name for name, _process in self._node.dead_processes()]

    def stop(self) -> None:
        """End it all."""
        ray.shutdown()
        self._node.kill_all_processes(check_alive=False, allow_graceful=True, wait=True)
