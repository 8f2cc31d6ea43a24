"""Decides whether Ray gets its fast start or its stock start, and says why.

A stock Ray node waits some seconds for programs that Daybreak does not need or does not have to wait for: two agents
beside each raylet and, on one machine, the dashboard, the autoscaler and the log monitor. The fast start

* gives the agents their ports in advance and a lower CPU priority than the ranks
  (:mod:`~daybreak_server.adapters.ray.fast_start_node`);
* does the same in a cluster's pods, where ``ray start`` starts the agents
  (:mod:`~daybreak_server.entrypoints.ray_start`);
* starts a one-machine head without the other programs (:mod:`~daybreak_server.adapters.ray.lean_node`);
* shortens some of Ray's own waits through environment variables
  (:mod:`~daybreak_server.adapters.ray.fast_start_environment`).

Ray has no parameters for most of this, so the fast start uses private parts of Ray, which may change in any release.
It is used only if

1. the setting ``ray.fast_start`` allows it;
2. the installed Ray is of a tested series (:data:`TESTED_SERIES`), because a private part may keep its name while its
   meaning changes;
3. every private part exists and accepts the arguments that Daybreak passes.

Otherwise stock ``ray start`` and ``ray.init`` do the same work more slowly, and one warning says why. The first two
checks take milliseconds and import no Ray, so they come first.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any, Final

TESTED_SERIES: Final = ("2.60",)
"""The versions of Ray that the fast start was tested with, by their first two numbers.

``pyproject.toml`` limits Ray to them, and the image's ``ray`` command (``deploy/image/ray-wrapper``) names them too.
Tests check that all three places agree."""


@dataclass(frozen=True)
class PrivatePart:
    """A private name in a module of Ray, and the arguments that it must take."""

    module: str
    name: str
    parameters: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return the full name."""
        return f"{self.module}.{self.name}"

    def problem(self) -> str | None:
        """Return what is wrong with the part in the installed Ray, or ``None``."""
        found: Any
        try:
            found = import_module(self.module)
            for part in self.name.split("."):
                found = getattr(found, part)
        except Exception as exc:  # a module may raise anything when it is imported
            return f"{self} is missing ({type(exc).__name__}: {exc})"
        if self.parameters:
            missing = set(self.parameters) - _parameters(found)
            if missing:
                return f"{self} no longer takes {', '.join(sorted(missing))}"
        return None


def _parameters(function: Any) -> set[str]:
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return set()


_SERVICES, _NODE, _NATIVE = "ray._private.services", "ray._private.node", "ray._raylet"
_PARAMETERS = "ray._private.parameter"

FAST_START_NODE_PARTS: Final = (
    PrivatePart(_NODE, "Node.start_raylet"),
    PrivatePart(_NODE, "Node.start_ray_client_server"),
    PrivatePart(_NODE, "Node.get_session_dir_path"),
    PrivatePart(_NODE, "Node.node_id"),
    PrivatePart(_NODE, "Node.__init__", ("ray_params", "head", "shutdown_at_exit", "spawn_reaper")),
    PrivatePart(
        _PARAMETERS,
        "RayParams",
        (
            "metrics_agent_port",
            "metrics_export_port",
            "dashboard_agent_listen_port",
            "runtime_env_agent_port",
        ),
    ),
    PrivatePart(_SERVICES, "_build_python_executable_command_memory_profileable"),
    PrivatePart(_NATIVE, "persist_port", ("dir", "node_id", "port_name", "port")),
    PrivatePart(_NATIVE, "METRICS_AGENT_PORT_NAME"),
    PrivatePart(_NATIVE, "METRICS_EXPORT_PORT_NAME"),
    PrivatePart(_NATIVE, "DASHBOARD_AGENT_LISTEN_PORT_NAME"),
    PrivatePart(_NATIVE, "RUNTIME_ENV_AGENT_PORT_NAME"),
)
LEAN_NODE_PARTS: Final = (
    *FAST_START_NODE_PARTS,
    PrivatePart(_NODE, "Node.start_api_server", ("include_dashboard", "raise_on_failure")),
    PrivatePart(_NODE, "Node.start_ray_processes"),
    PrivatePart(_NODE, "Node.gcs_address"),
    PrivatePart(_NODE, "Node.dead_processes"),
    PrivatePart(_NODE, "Node.kill_all_processes", ("check_alive", "allow_graceful", "wait")),
    PrivatePart(_SERVICES, "get_node", ("gcs_address", "node_id")),
    PrivatePart(
        _PARAMETERS,
        "RayParams",
        (
            "num_cpus",
            "object_store_memory",
            "temp_dir",
            "include_dashboard",
            "include_log_monitor",
            "no_monitor",
            "resource_isolation_config",
        ),
    ),
    PrivatePart(
        "ray._private.resource_isolation_config", "ResourceIsolationConfig", ("enable_resource_isolation",)
    ),
)
RAY_START_PARTS: Final = (
    *FAST_START_NODE_PARTS,
    PrivatePart("ray.scripts.scripts", "main"),
    PrivatePart("ray.scripts.scripts", "start.params"),
)


def installed_version() -> str:
    """Return the version of the installed Ray, or ``unknown``, without importing Ray."""
    try:
        return metadata.version("ray")
    except metadata.PackageNotFoundError:
        return "unknown"


def problems(parts: Iterable[PrivatePart]) -> list[str]:
    """Return what is wrong with these private parts in the installed Ray. This imports their modules."""
    return [problem for part in parts if (problem := part.problem()) is not None]


def reason_for_stock_start(*, allowed: bool, version: str, problems: Sequence[str] = ()) -> str | None:
    """Return why Ray must get its stock start, or ``None`` if it may get the fast start.

    :param allowed: The setting ``ray.fast_start``.
    :param problems: The result of :func:`problems`. Empty if the private parts have not been checked yet.
    """
    if not allowed:
        return "the setting ray.fast_start is off (DAYBREAK_RAY__FAST_START)"
    if ".".join(version.split(".")[:2]) not in TESTED_SERIES:
        return f"the fast start was tested with Ray {_series()}, and Ray {version} is installed"
    if problems:
        return f"Ray {version} differs from what the fast start was tested with: {'; '.join(problems)}"
    return None


def warning(reason: str) -> str:
    """Return the text of the warning: what happens, why, and what to do."""
    return (
        f"Ray gets its stock start, which takes some seconds longer: {reason}. Everything works; for the fast start, "
        f"use Ray {_series()} as released, with the setting ray.fast_start on."
    )


def _series() -> str:
    return " or ".join(f"{series}.x" for series in TESTED_SERIES)
