"""Where Ray's private parts are not what they were, or must not be used, Ray starts as it comes, and works."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from support.ray_versions import make_ray, renamed
from support.system import System
from support.waiting import wait_until

from daybreak_server.adapters.ray.environment import QUICK
from daybreak_server.adapters.ray.fast_start import TESTED_SERIES
from daybreak_server.entrypoints.instance import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
PRIVATE_NAME = "_build_python_executable_command_memory_profileable"
WARNING = "Ray is started by its stock start"
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
from daybreak_server.adapters.ray.local import LocalRay
from daybreak_server.entrypoints.instance import free_port
node = LocalRay(Path(sys.argv[1]), cpus=1, free_port=free_port, allow_fast_start=sys.argv[2] == "on")
answer = ray.get(ray.remote(lambda: 6 * 7).remote())
print(json.dumps({"answer": answer, "address": ray.util.get_node_ip_address(), "dead": node.dead()}), flush=True)
if sys.stdin.readline() == "stop\\n":
    node.stop()
else:
    while not node.dead():
        pass
    print(json.dumps({"dead": node.dead()}), flush=True)
    os._exit(0)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short: Ray's sockets lie below it."""
    made = Path(tempfile.mkdtemp(prefix="dbr-"))
    yield made
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(params=["a private name is missing", "an unknown version", "the setting is off"])
def why(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[dict[str, str], str]:
    """Variables with which Ray must start as it comes, and the reason that the warning gives."""
    match request.param:
        case "a private name is missing":
            # Of a series that was tested, also where the installed Ray is of another.
            made = make_ray(tmp_path / "ray", *renamed(PRIVATE_NAME), version=f"{TESTED_SERIES[0]}.99")
            return {"PYTHONPATH": str(made)}, f"{PRIVATE_NAME} is missing"
        case "an unknown version":
            made = make_ray(tmp_path / "ray", version="2.99.0")
            return {"PYTHONPATH": str(made)}, "Ray 2.99.0 is installed"
    return {"DAYBREAK_RAY__FAST_START": "off"}, "the setting ray.fast_start is off"


def variables(extra: dict[str, str]) -> dict[str, str]:
    """An environment without ours, in which Ray listens on the loopback only and writes no token of its own."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("DAYBREAK_", "RAY_"))}
    ray = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "0" * 64,
    }
    return {**own, **ray, **extra}


def end(process: subprocess.Popen[str]) -> None:
    """This process and all below it."""
    below = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for one in psutil.wait_procs(below, timeout=10)[1]:
        one.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def test_ray_start_becomes_the_stock_command_with_the_same_arguments(
    why: tuple[dict[str, str], str], folder: Path, tmp_path: Path
) -> None:
    environment, reason = why
    port = free_port()
    agents = ("metrics-export-port", "dashboard-agent-listen-port", "ray-client-server-port")
    given = [
        *("start", "--head", "--block", f"--port={port}", "--node-ip-address=127.0.0.1", "--num-cpus=1"),
        *(f"--{name}={free_port()}" for name in agents),
        *("--include-dashboard=false", f"--temp-dir={folder}", "--object-store-memory=80000000"),
    ]
    said = tmp_path / "said"
    with said.open("w") as output:
        head = subprocess.Popen(
            [sys.executable, "-m", "daybreak_server.entrypoints.ray_start", *given],
            env=variables(environment),
            stdout=subprocess.DEVNULL,
            stderr=output,
            text=True,
        )
    try:
        raylet = wait_until(lambda: _below(head, "raylet"), 120, "the raylet")
        stock = str(Path(sys.executable).with_name("ray"))
        assert psutil.Process(head.pid).cmdline()[-len(given) - 1 :] == [stock, *given]
        assert not set(QUICK) & set(raylet.environ())
        done = wait_until(lambda: _try_a_task(port, environment), 180, "an answer of the node")
        assert "answer 42" in done
        assert _below(head, "log_monitor.py") is not None, "as stock `ray start` has it"
        lines = [line for line in said.read_text().splitlines() if WARNING in line]
        assert len(lines) == 1
        assert reason in lines[0]
    finally:
        end(head)


def _try_a_task(port: int, environment: dict[str, str]) -> str | None:
    done = subprocess.run(
        [sys.executable, "-c", RUN_A_TASK, f"127.0.0.1:{port}"],
        check=False,
        env=variables(environment),
        capture_output=True,
        text=True,
    )
    return done.stdout if done.returncode == 0 else None


def _below(process: subprocess.Popen[str], part: str) -> psutil.Process | None:
    assert process.poll() is None, "it has ended"
    for one in psutil.Process(process.pid).children(recursive=True):
        try:
            if any(part == Path(word).name for word in one.cmdline()):
                return one
        except psutil.Error:
            continue
    return None


class Local:
    """A process with a `LocalRay`, which has run a task."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        # The tree of settings hands this one on as an argument.
        allowed = environment.pop("DAYBREAK_RAY__FAST_START", "on")
        self.errors = folder.with_suffix(".err")
        with self.errors.open("w") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LOCAL, str(folder), allowed],
                env=variables(environment),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )

    def next(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.errors.read_text()
        return json.loads(line)

    def tell(self, word: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{word}\n")
        self.process.stdin.flush()

    def warnings(self) -> list[str]:
        return [line for line in self.errors.read_text().splitlines() if WARNING in line]


def test_a_local_ray_starts_by_ray_init_and_ends_whole(why: tuple[dict[str, str], str], folder: Path) -> None:
    environment, reason = why
    local = Local(folder, dict(environment))
    try:
        assert local.next() == {"answer": 42, "address": "127.0.0.1", "dead": []}
        (line,) = local.warnings()
        assert reason in line
        below = psutil.Process(local.process.pid).children(recursive=True)
        local.tell("stop")
        assert local.process.wait(60) == 0
        assert not psutil.wait_procs(below, timeout=30)[1]
    finally:
        end(local.process)
        local.errors.unlink()


def test_the_stock_start_sees_at_once_that_a_part_of_ray_has_died(folder: Path) -> None:
    local = Local(folder, {"DAYBREAK_RAY__FAST_START": "off"})
    try:
        local.next()
        raylet = _below(local.process, "raylet")
        assert raylet is not None
        local.tell("watch")
        raylet.kill()
        assert local.next() == {"dead": ["raylet"]}
    finally:
        end(local.process)
        local.errors.unlink()


def test_a_whole_daybreak_runs_on_a_ray_that_starts_as_it_comes(
    systems: Callable[..., System], tmp_path: Path
) -> None:
    pool = {"DAYBREAK_POOLS__ECHO__WORKLOAD": "echo", "DAYBREAK_POOLS__ECHO__CPUS_PER_RANK": "0.5"}
    up = systems("up", HOME=str(tmp_path), DAYBREAK_RAY__FAST_START="off", **pool)
    up.ready(800)
    up.wait(up.submit(message="hello", steps=2))
    lines = (up.folder / "logs" / "ray.log").read_text().splitlines()
    assert len([line for line in lines if WARNING in line]) == 1
    ray = psutil.Process(up.state()["pids"]["ray"])
    assert not set(QUICK) & set(ray.environ())
    up.process.terminate()
    assert up.process.wait(180) == 0
    assert "nothing is left running" in up.said()
    assert not up.left()
