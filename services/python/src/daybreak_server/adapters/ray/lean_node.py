"""The fast start of Ray on one machine: a head without the programs that only a cluster or the dashboard needs.

``ray.init`` would also start a dashboard, an autoscaler and a log monitor: three Python programs that nothing here
uses, and that take half of the time of a start. Ray has parameters to leave out the autoscaler and the log monitor,
but not the dashboard. So this module uses private parts of Ray. Import it only if
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
    """A head node without Ray's API server."""

    def start_api_server(self, *, include_dashboard: bool | None, raise_on_failure: bool) -> None:
        """Start nothing: the API server only serves the dashboard and the REST API."""
        self._webui_url = ""

    def start_ray_processes(self) -> None:
        """Start Ray's processes, and wait up to 240 s for them. Ray itself waits 30 s, which is too short on a busy
        machine."""
        super().start_ray_processes()
        end = time.monotonic() + _REGISTER_S
        while time.monotonic() < end and not self.dead_processes():
            try:
                services.get_node(self.gcs_address, self.node_id)
                return
            except RuntimeError:
                time.sleep(0.1)


def start(folder: Path, *, cpus: int, object_store_bytes: int, free_port: Callable[[], int]) -> LeanNode:
    """Start a head whose session folder is created below ``folder``."""
    return LeanNode(
        RayParams(
            num_cpus=cpus,
            object_store_memory=object_store_bytes,
            temp_dir=str(folder),
            include_dashboard=False,
            include_log_monitor=False,
            no_monitor=True,
            # With fixed ports, the raylet does not wait until its agents have chosen their ports.
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
