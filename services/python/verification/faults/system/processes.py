"""Finds the processes of a running ``daybreakd up`` by component, and kills a process."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from daybreak_server.local import reaper
from testkit.processes import alive
from testkit.waiting import wait_until

TITLES = {
    "gateway": "daybreak_server.entrypoints.gateway",
    "api": "ray::ServeReplica:api:",
    "controller": "ray::ServeController",
    "proxy": "ray::ProxyActor",
    "raylet": "raylet/raylet",
    "gcs": "gcs/gcs_server",
    "agent": "ray::DashboardAgent",
    "environment-agent": "ray::RuntimeEnvAgent",
    "head": "daybreak_server.local.local_ray",
    "valkey": "valkey-server",
    "watchdog": "daybreak_server.entrypoints.watchdog",
}
"""Component → a substring of the command line of its process."""


def find(mark: str, component: str) -> list[int]:
    """The live processes of a component, in the instance whose tag is ``mark``."""
    return [pid for pid in reaper.tagged(mark) if TITLES[component] in title(pid)]


def title(pid: int) -> str:
    """The command line of a process; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def kill(pid: int, *, timeout_s: float = 20.0) -> None:
    """Send SIGKILL and wait until the process is gone. :raises ProcessLookupError: when it does not exist."""
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not alive(pid), timeout_s, f"the end of process {pid}")
