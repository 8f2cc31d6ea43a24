"""A Ray node whose ranks do not wait for its agents.

Two agents run beside each raylet, for metrics and for runtime environments. They are Python programs whose imports take
1.5 s on two free cores, and on busy cores more than the 15 s that Ray waits for them. So this node does two things:

- It writes the ports on which the agents listen. A raylet joins the cluster only when these ports are written. In
  stock Ray, the agents write them. If the node's parameters contain the ports, :meth:`FastStartNode.start_raylet`
  writes them before the agents start.
- It runs the agents with a nice value of 10. The agents and the first ranks start at the same time, and the agents
  yield to the ranks.

Ray has no parameters for these two things, so this module uses private parts of Ray. Import this module only if
:mod:`~daybreak_server.adapters.ray.fast_start` allows it. The list of the private parts is there too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from ray._private import services
from ray._private.node import Node

_native: Any = import_module("ray._raylet")
_RENICE = ("nice", "-n", "10")


class FastStartNode(Node):  # type: ignore[misc]
    """Ray's node. If its parameters contain the agents' ports, the raylet need not wait until the agents write them."""

    serves_clients = True
    """Whether a head starts the server for Ray clients. Ray has no option that turns this server off."""

    def __init__(self, ray_params: Any, *args: Any, **options: Any) -> None:
        self._parameters = ray_params
        super().__init__(ray_params, *args, **options)

    def start_ray_client_server(self) -> None:
        """Start the server for Ray clients, unless it is not wanted."""
        if self.serves_clients:
            super().start_ray_client_server()

    def start_raylet(self, *args: Any, **options: Any) -> None:
        """Write the agents' ports, and start the raylet and the agents."""
        params = self._parameters
        for name, port in (
            (_native.METRICS_AGENT_PORT_NAME, params.metrics_agent_port),
            (_native.METRICS_EXPORT_PORT_NAME, params.metrics_export_port),
            (_native.DASHBOARD_AGENT_LISTEN_PORT_NAME, params.dashboard_agent_listen_port),
            (_native.RUNTIME_ENV_AGENT_PORT_NAME, params.runtime_env_agent_port),
        ):
            if port:
                _native.persist_port(self.get_session_dir_path(), self.node_id, name, port)
        with _reniced_agents():
            super().start_raylet(*args, **options)


@contextmanager
def _reniced_agents() -> Iterator[None]:
    """Renice the Python programs whose commands Ray builds inside this context: the raylet's two agents."""
    name = "_build_python_executable_command_memory_profileable"
    original = getattr(services, name)

    def renice(*args: Any, **options: Any) -> list[str]:
        return [*_RENICE, *original(*args, **options)]

    setattr(services, name, renice)
    try:
        yield
    finally:
        setattr(services, name, original)
