"""Whether Ray is started fast or as it comes: the one place that decides, and says why.

A fast start goes through private parts of Ray (:mod:`~daybreak_server.adapters.ray.fast_start_node`,
:mod:`~daybreak_server.adapters.ray.lean_node`, :mod:`~daybreak_server.entrypoints.ray_start`). Ray promises nothing
about them, so it is used only where all of this holds; otherwise stock ``ray start`` and ``ray.init`` do the same
work, more slowly, and one warning says why:

1. The setting ``ray.fast_start`` allows it.
2. The installed Ray is of a series that was tested (:data:`TESTED_SERIES`). The name of a private part may stay while
   its meaning changes, so names alone prove nothing.
3. Every private part is there and takes the arguments that it is given.

The first two cost milliseconds and import no Ray; ask them first.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module, metadata
from typing import Any, Final

TESTED_SERIES: Final = ("2.60",)
"""The first two numbers of the versions of Ray that fast start was tested with.

``pyproject.toml`` bounds Ray by them, and the image's ``ray`` command (``deploy/image/ray``) names them too; a test
compares the three."""


@dataclass(frozen=True)
class PrivatePart:
    """A name in a module of Ray, and the arguments that it must take."""

    module: str
    name: str
    parameters: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Its full name."""
        return f"{self.module}.{self.name}"

    def problem(self) -> str | None:
        """What is wrong with it in the installed Ray, if anything."""
        found: Any
        try:
            found = import_module(self.module)
            for part in self.name.split("."):
                found = getattr(found, part)
        except Exception as exc:  # a module may raise anything when it is imported
            return f"{self} is missing ({type(exc).__name__}: {exc})"
        if self.parameters:
            lacking = set(self.parameters) - _parameters(found)
            if lacking:
                return f"{self} no longer takes {', '.join(sorted(lacking))}"
        return None


def _parameters(function: Any) -> set[str]:
    try:
        return set(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return set()


_SERVICES, _NODE, _NATIVE = "ray._private.services", "ray._private.node", "ray._raylet"
_PARAMETERS = "ray._private.parameter"

OF_PROMPT_NODE: Final = (
    PrivatePart(_NODE, "Node.start_raylet"),
    PrivatePart(_NODE, "Node.get_session_dir_path"),
    PrivatePart(_NODE, "Node.node_id"),
    PrivatePart(_NODE, "Node.__init__", ("ray_params", "head", "shutdown_at_exit", "spawn_reaper")),
    PrivatePart(
        _PARAMETERS,
        "RayParams",
        (
            *("metrics_agent_port", "metrics_export_port"),
            *("dashboard_agent_listen_port", "runtime_env_agent_port"),
        ),
    ),
    PrivatePart(_SERVICES, "_build_python_executable_command_memory_profileable"),
    PrivatePart(_NATIVE, "persist_port", ("dir", "node_id", "port_name", "port")),
    PrivatePart(_NATIVE, "METRICS_AGENT_PORT_NAME"),
    PrivatePart(_NATIVE, "METRICS_EXPORT_PORT_NAME"),
    PrivatePart(_NATIVE, "DASHBOARD_AGENT_LISTEN_PORT_NAME"),
    PrivatePart(_NATIVE, "RUNTIME_ENV_AGENT_PORT_NAME"),
)
OF_LEAN_NODE: Final = (
    *OF_PROMPT_NODE,
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
            *("num_cpus", "object_store_memory", "temp_dir", "include_dashboard", "include_log_monitor"),
            *("no_monitor", "resource_isolation_config"),
        ),
    ),
    PrivatePart(
        "ray._private.resource_isolation_config", "ResourceIsolationConfig", ("enable_resource_isolation",)
    ),
)
OF_THE_COMMAND: Final = (
    *OF_PROMPT_NODE,
    PrivatePart("ray.scripts.scripts", "main"),
    PrivatePart("ray.scripts.scripts", "start.params"),
)


def installed_version() -> str:
    """The version of Ray that is installed, or ``unknown``; imports none of it."""
    try:
        return metadata.version("ray")
    except metadata.PackageNotFoundError:
        return "unknown"


def problems(parts: Iterable[PrivatePart]) -> list[str]:
    """What is wrong with these private parts of the installed Ray. Imports them."""
    return [problem for part in parts if (problem := part.problem()) is not None]


def reason_for_stock_start(*, allowed: bool, version: str, problems: Sequence[str] = ()) -> str | None:
    """Why this Ray must be started as it comes; ``None`` where it may be started fast.

    ``allowed``: the setting ``ray.fast_start``. ``problems``: of its private parts, where they were looked at.
    """
    if not allowed:
        return "the setting ray.fast_start is off (DAYBREAK_RAY__FAST_START)"
    if ".".join(version.split(".")[:2]) not in TESTED_SERIES:
        return f"fast start was tested with Ray {_series()}, and Ray {version} is installed"
    if problems:
        return f"Ray {version} differs from what fast start was tested with: {'; '.join(problems)}"
    return None


def warning(reason: str) -> str:
    """The one line for whoever runs it: what happens, why, and what to do."""
    return (
        f"Ray is started by its stock start, which takes some seconds longer: {reason}. Everything works; for the "
        f"fast start, use Ray {_series()} as released, and leave ray.fast_start on."
    )


def _series() -> str:
    return " or ".join(f"{one}.x" for one in TESTED_SERIES)
