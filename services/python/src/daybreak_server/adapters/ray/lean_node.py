"""The fast start of a Ray of one machine: a head without what only a cluster or a person at its dashboard needs.

``ray.init`` would also start a dashboard, an autoscaler and a log monitor: three Python programs that nobody
here asks, and half of the time that a start takes. Ray has parameters for two of them and none for the first,
so this reaches into its private parts. Import it only where
:mod:`~daybreak_server.adapters.ray.fast_start` allows it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ray._private import services
from ray._private.parameter import RayParams
from ray._private.resource_isolation_config import ResourceIsolationConfig

from daybreak_server.adapters.ray.fast_start_node import FastStartNode

_REGISTER_S = 240.0


class LeanNode(FastStartNode):
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
                services.get_node(self.gcs_address, self.node_id)
                return
            except RuntimeError:
                time.sleep(0.1)


def start(folder: Path, *, cpus: int, object_store_bytes: int, free_port: Callable[[], int]) -> LeanNode:
    """Start the head's processes."""
    return LeanNode(
        RayParams(
            num_cpus=cpus,
            object_store_memory=object_store_bytes,
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
