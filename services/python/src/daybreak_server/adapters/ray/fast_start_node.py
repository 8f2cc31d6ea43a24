"""A node of Ray whose ranks do not wait for its agents.

Beside each raylet run two agents (for metrics and for runtime environments): Python programs, whose imports take
1.5 s on two free cores, and more than Ray's patience (15 s) on busy ones.

- A raylet joins the cluster only when its agents have written down which ports they listen at. Where the ports are
  given, they can be written down before.
- The agents and the first ranks start at the same time. The agents yield: they are nice, and the ranks are not.

Ray has no parameters for either, so this reaches into its private parts. Import it only where
:mod:`~daybreak_server.adapters.ray.fast_start` allows it: there is the list of what is used here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from ray._private import services
from ray._private.node import Node

_native: Any = import_module("ray._raylet")
_YIELD = ("nice", "-n", "10")


class FastStartNode(Node):  # type: ignore[misc]
    """Ray's node; each port of an agent that its parameters name is told at once."""

    def __init__(self, ray_params: Any, *args: Any, **options: Any) -> None:
        self._parameters = ray_params
        super().__init__(ray_params, *args, **options)

    def start_raylet(self, *args: Any, **options: Any) -> None:
        """Say which ports the agents will have, and start."""
        params = self._parameters
        for name, port in (
            (_native.METRICS_AGENT_PORT_NAME, params.metrics_agent_port),
            (_native.METRICS_EXPORT_PORT_NAME, params.metrics_export_port),
            (_native.DASHBOARD_AGENT_LISTEN_PORT_NAME, params.dashboard_agent_listen_port),
            (_native.RUNTIME_ENV_AGENT_PORT_NAME, params.runtime_env_agent_port),
        ):
            if port:
                _native.persist_port(self.get_session_dir_path(), self.node_id, name, port)
        with _yielding():
            super().start_raylet(*args, **options)


@contextmanager
def _yielding() -> Iterator[None]:
    """Python programs whose commands are made meanwhile are nice: the raylet's two agents."""
    name = "_build_python_executable_command_memory_profileable"
    plain = getattr(services, name)

    def nice(*args: Any, **options: Any) -> list[str]:
        return [*_YIELD, *plain(*args, **options)]

    setattr(services, name, nice)
    try:
        yield
    finally:
        setattr(services, name, plain)
