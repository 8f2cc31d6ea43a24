"""Tests that Daybreak starts Ray with Ray's own code (the *stock start*) if Ray's private parts have changed
or must not be used, and that this Ray works.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from daybreak_server.adapters.ray.fast_start import TESTED_SERIES
from daybreak_server.adapters.ray.fast_start_environment import FAST_START_ENVIRONMENT
from daybreak_server.local.free_ports import free_port
from testkit.ray_versions import make_ray, renamed
from testkit.system import System, kill_tree
from testkit.waiting import wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]
PRIVATE_NAME = "_build_python_executable_command_memory_profileable"
WARNING = "Ray gets its stock start"
GAVE_UP = "timed out during startup"
RUN_A_TASK = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False, configure_logging=False)
print("answer", ray.get(ray.remote(lambda: 6 * 7).remote()))
"""
LOCAL = """
import json, logging, os, sys
from pathlib import Path
logging.basicConfig(stream=sys.stderr)
import ray
from daybreak_server.adapters.ray.local_cluster import LocalRay
from daybreak_server.local.free_ports import free_port
answers = os.fdopen(int(sys.argv[3]), "w", buffering=1)
os.set_inheritable(answers.fileno(), False)
node = LocalRay(Path(sys.argv[1]), cpus=1, free_port=free_port, allow_fast_start=sys.argv[2] == "on")
answer = ray.get(ray.remote(lambda: 6 * 7).remote())
answers.write(json.dumps({"answer": answer, "address": ray.util.get_node_ip_address(), "dead": node.dead()}) + "\\n")
if sys.stdin.readline() == "stop\\n":
    node.stop()
else:
    while not node.dead():
        pass
    answers.write(json.dumps({"dead": node.dead()}) + "\\n")
    os._exit(0)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Make a folder with a short path. Ray creates sockets below it, and the path of a socket must be short."""
    parent = Path(tempfile.mkdtemp(prefix="dbr-"))
    yield parent / "r"
    shutil.rmtree(parent, ignore_errors=True)


Why = tuple[dict[str, str], str]
"""Environment variables that force the stock start, and the reason that the warning must give."""
PRIVATE, UNKNOWN, OFF = "a private name is missing", "an unknown version", "the setting is off"


@pytest.fixture(params=[PRIVATE, UNKNOWN, OFF])
def why(request: pytest.FixtureRequest, tmp_path: Path) -> Why:
    """Each reason for the stock start. All reasons lead to the same start, so a test of a whole Ray uses only one."""
    if request.param == PRIVATE:
        # The version belongs to a tested series, so the missing name is the only reason for the stock start.
        fake_ray = make_ray(tmp_path / "ray", *renamed(PRIVATE_NAME), version=f"{TESTED_SERIES[0]}.99")
        return {"PYTHONPATH": str(fake_ray)}, f"{PRIVATE_NAME} is missing"
    if request.param == UNKNOWN:
        fake_ray = make_ray(tmp_path / "ray", version="2.99.0")
        return {"PYTHONPATH": str(fake_ray)}, "Ray 2.99.0 is installed"
    return {"DAYBREAK_RAY__FAST_START": "off"}, "the setting ray.fast_start is off"


def variables(extra: dict[str, str]) -> dict[str, str]:
    """This process's environment without its variables for Daybreak and Ray, plus ``extra`` and variables with which
    Ray listens on loopback only and uses a fixed token."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("DAYBREAK_", "RAY_"))}
    ray = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0" * 64,
    }
    return {**inherited, **ray, **extra}


def end(process: subprocess.Popen[str]) -> None:
    """Stop this process and all of its descendants."""
    below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for survivor in psutil.wait_procs(below, timeout=10)[1]:
        survivor.kill()
    if process.stdin is not None:
        process.stdin.close()


Started = TypeVar("Started", "Head", "Local")


def start(make: Callable[[], Started]) -> Started:
    """Start Ray, and retry if it gives up.

    Ray gives up if a start takes more than 30 s, which can happen on a busy machine. Nothing can change this limit of
    the stock start.
    """
    for _ in range(5):
        started = make()
        try:
            if started.is_up():
                return started
        except BaseException:
            started.end()
            raise
        started.end()
        assert GAVE_UP in started.errors.read_text(), started.errors.read_text()
    raise AssertionError(f"Ray gave up five times: {started.errors.read_text()}")


def warnings(errors: Path) -> list[str]:
    return [line for line in errors.read_text().splitlines() if WARNING in line]


class Head:
    """A Ray head, started by Daybreak's own ``ray start``, which replaces itself with Ray's command."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self.port = free_port()
        agents = ("metrics-export-port", "dashboard-agent-listen-port", "ray-client-server-port")
        self.arguments = [
            *("start", "--head", "--block", f"--port={self.port}", "--node-ip-address=127.0.0.1"),
            *(f"--{name}={free_port()}" for name in agents),
            *("--num-cpus=1", "--include-dashboard=false", f"--temp-dir={folder}"),
            "--object-store-memory=80000000",
        ]
        self.errors = folder.with_suffix(".err")
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "daybreak_server.entrypoints.ray_start", *self.arguments],
                env=variables(environment),
                stdout=subprocess.DEVNULL,
                stderr=errors,
                text=True,
            )

    def is_up(self) -> bool:
        """Wait until the node has joined Ray. Returns ``False`` if Ray gave up and the command ended."""
        log = Path(self.arguments[-2].partition("=")[2]) / "session_latest" / "logs" / "raylet.out"

        def joined_or_ended() -> bool:
            joined = log.exists() and "Raylet of id" in log.read_text(errors="replace")
            return joined or self.process.poll() is not None

        wait_until(joined_or_ended, 120, "the node to join or `ray start` to end")
        return self.process.poll() is None

    def end(self) -> None:
        end(self.process)


def test_ray_start_becomes_the_stock_command_with_the_same_arguments(why: Why, folder: Path) -> None:
    environment, reason = why
    head = Head(folder, environment)
    try:
        process = psutil.Process(head.process.pid)
        stock = [str(Path(sys.executable).with_name("ray")), *head.arguments]
        wait_until(
            lambda: process.cmdline()[-len(stock) :] == stock, 60, "the process to become Ray's command"
        )
        assert not set(FAST_START_ENVIRONMENT) & set(process.environ())
        (line,) = warnings(head.errors)
        assert reason in line
    finally:
        kill_tree(head.process)


@pytest.mark.parametrize("why", [PRIVATE], indirect=True)
def test_a_node_with_the_stock_start_runs_a_task(why: Why, folder: Path) -> None:
    environment, _ = why
    head = start(lambda: Head(folder, environment))
    try:
        raylet = _below(head.process, "raylet")
        assert raylet is not None
        assert not set(FAST_START_ENVIRONMENT) & set(raylet.environ())
        output = wait_until(lambda: _try_a_task(head.port, environment), 180, "the node to run a task")
        assert "answer 42" in output
        assert _below(head.process, "log_monitor.py") is not None, "the stock start has a log monitor"
    finally:
        head.end()


def _try_a_task(port: int, environment: dict[str, str]) -> str | None:
    result = subprocess.run(
        [sys.executable, "-c", RUN_A_TASK, f"127.0.0.1:{port}"],
        check=False,
        env=variables(environment),
        capture_output=True,
        text=True,
    )
    return result.stdout if result.returncode == 0 else None


def _below(process: subprocess.Popen[str], part: str) -> psutil.Process | None:
    assert process.poll() is None, "the process has ended"
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if any(part == Path(word).name for word in child.cmdline()):
                return child
        except psutil.Error:
            continue
    return None


class Local:
    """A process with a ``LocalRay`` that runs a task. It reports through a pipe, because Ray writes to its stdout."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        # LocalRay gets this setting as an argument, both from Daybreak and from the program LOCAL.
        allowed = environment.get("DAYBREAK_RAY__FAST_START", "on")
        self.errors = folder.with_suffix(".err")
        answers, child_end = os.pipe()
        self.answers = os.fdopen(answers)
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LOCAL, str(folder), allowed, str(child_end)],
                env=variables(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=[child_end],
                text=True,
            )
        os.close(child_end)
        self.first: dict[str, Any] = {}

    def is_up(self) -> bool:
        """Wait until the task has run. Returns ``False`` if Ray gave up and the process ended."""
        self.first = self.next() or {}
        return bool(self.first)

    def next(self) -> dict[str, Any] | None:
        line = self.answers.readline()
        return json.loads(line) if line else None

    def end(self) -> None:
        end(self.process)
        self.answers.close()

    def send(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()


@pytest.mark.parametrize("why", [PRIVATE], indirect=True)
def test_a_local_ray_starts_with_ray_init_and_leaves_no_process(why: Why, folder: Path) -> None:
    environment, reason = why
    local = start(lambda: Local(folder, environment))
    try:
        assert local.first == {"answer": 42, "address": "127.0.0.1", "dead": []}
        (line,) = warnings(local.errors)
        assert reason in line
        below = psutil.Process(local.process.pid).children(recursive=True)
        local.send("stop")
        assert local.process.wait(60) == 0
        assert not psutil.wait_procs(below, timeout=30)[1]
    finally:
        local.end()


@pytest.mark.parametrize("why", [UNKNOWN], indirect=True)
def test_the_stock_start_notices_at_once_that_a_part_of_ray_has_died(why: Why, folder: Path) -> None:
    environment, reason = why
    local = start(lambda: Local(folder, environment))
    try:
        (line,) = warnings(local.errors)
        assert reason in line
        raylet = _below(local.process, "raylet")
        assert raylet is not None
        local.send("watch")
        raylet.kill()
        assert local.next() == {"dead": ["raylet"]}
    finally:
        local.end()


def test_a_whole_daybreak_runs_on_a_ray_with_the_stock_start(
    systems: Callable[..., System], tmp_path: Path
) -> None:
    pool = {"DAYBREAK_POOLS__ECHO__WORKLOAD": "echo", "DAYBREAK_POOLS__ECHO__CPUS_PER_RANK": "0.5"}
    up = systems("up", HOME=str(tmp_path), DAYBREAK_RAY__FAST_START="off", **pool)
    up.ready(800)
    up.wait(up.submit(message="hello", steps=2))
    (line,) = warnings(up.folder / "logs" / "ray.log")
    assert "the setting ray.fast_start is off" in line
    ray = psutil.Process(up.state()["pids"]["ray"])
    assert not set(FAST_START_ENVIRONMENT) & set(ray.environ())
    up.process.terminate()
    assert up.process.wait(180) == 0
    assert "no processes are left" in up.output_text()
    assert not up.remaining_processes()
