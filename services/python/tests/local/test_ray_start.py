"""Tests of a pod's ``ray start``: Ray's own command, without the log monitor and without waiting for the agents."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from daybreak_server.adapters.ray import fast_start
from daybreak_server.adapters.ray.fast_start_environment import FAST_START_ENVIRONMENT
from daybreak_server.entrypoints.ray_start import serves_clients, with_defaults
from daybreak_server.local.free_ports import free_port
from testkit.system import kill_tree
from testkit.waiting import wait_until

CLIENT_SERVER = "ray.util.client.server"
AGENTS = ("dashboard/agent.py", "runtime_env/agent/main.py")


def test_options_of_the_caller_are_kept() -> None:
    options = [
        "--address=head:6379",
        "--block",
        "--include-log-monitor",
        "true",
        "--runtime-env-agent-port=7",
    ]
    assert with_defaults(options) == [*options, "--dashboard-agent-grpc-port=8266"]


def test_by_default_the_log_monitor_is_off_and_the_agents_have_fixed_ports() -> None:
    assert with_defaults([]) == [
        "--include-log-monitor=false",
        "--dashboard-agent-grpc-port=8266",
        "--runtime-env-agent-port=8267",
    ]


def test_a_head_has_no_autoscaler() -> None:
    assert with_defaults(["--head", "--block"])[-1] == "--no-monitor"
    assert with_defaults(["--head", "--no-monitor"]).count("--no-monitor") == 1


def test_a_head_serves_ray_clients_if_their_port_is_given() -> None:
    assert serves_clients(["--head", "--ray-client-server-port=10001"])
    assert not serves_clients(["--head", "--port=6379"])


class Head:
    """A Ray head that ``daybreak_server.entrypoints.ray_start`` starts, with ``folder`` for its files.

    :meth:`end` does not use ``ray stop``, which would end every Ray on this machine.
    """

    def __init__(self, folder: Path, path: str, *options: str) -> None:
        self.logs = folder / "session_latest" / "logs"
        names = ("port", "metrics-export-port", "dashboard-agent-listen-port")
        options = (
            *options,
            *(
                f"--{name}={free_port()}"
                for name in (*names, "dashboard-agent-grpc-port", "runtime-env-agent-port")
            ),
            *(
                "--head",
                "--block",
                "--node-ip-address=127.0.0.1",
                "--include-dashboard=false",
                "--num-cpus=1",
            ),
            *(f"--temp-dir={folder}", "--object-store-memory=80000000"),
        )
        quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "daybreak_server.entrypoints.ray_start", "start", *options],
            env={**os.environ, **quiet, "PATH": path},
            stdout=subprocess.DEVNULL,
        )
        self._ray_start = psutil.Process(self.process.pid)

    def started(self) -> bool:
        """Whether the raylet accepts work. Its log has the line ``Raylet of id`` once it has joined the cluster."""
        assert self.process.poll() is None, "ray start has ended"
        log = self.logs / "raylet.out"
        return log.exists() and "Raylet of id" in log.read_text(errors="replace")

    def find(self, part: str) -> psutil.Process | None:
        """The first descendant whose command contains ``part``."""
        return next(
            (
                child
                for child in self._ray_start.children(recursive=True)
                if part in " ".join(_command(child))
            ),
            None,
        )

    def end(self) -> None:
        kill_tree(self.process)


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path. Ray creates sockets in this folder, and the path of a socket must be short."""
    folder_path = Path(tempfile.mkdtemp(prefix="dbr-"))
    yield folder_path
    shutil.rmtree(folder_path, ignore_errors=True)


@pytest.fixture
def without_agents(tmp_path: Path) -> str:
    """A PATH with a stub of ``nice``, with which Ray starts its agents. The stub records the command, then sleeps."""
    stub = tmp_path / "nice"
    stub.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/commands\nexec sleep 600\n')
    stub.chmod(0o755)
    return f"{tmp_path}:{os.environ['PATH']}"


@pytest.mark.skipif(
    fast_start.reason_for_stock_start(allowed=True, version=fast_start.installed_version()) is not None,
    reason="fast start was not tested with this Ray; test_stock_ray.py tests how this Ray starts",
)
def test_a_node_accepts_work_before_its_agents_have_started(
    folder: Path, without_agents: str, tmp_path: Path
) -> None:
    head = Head(folder, without_agents)
    try:
        wait_until(head.started, 60, "the raylet")
        commands = (tmp_path / "commands").read_text()
        assert all(agent in commands for agent in AGENTS)
        assert commands.count("-n 10 ") == len(AGENTS)
        for unwanted in ("log_monitor.py", "monitor.py", CLIENT_SERVER):
            assert head.find(unwanted) is None
        raylet = head.find("--raylet_socket_name")
        assert raylet is not None
        assert raylet.environ().items() >= FAST_START_ENVIRONMENT.items()
    finally:
        head.end()
