"""Tests of ``daybreakd up`` with real processes: Valkey, Ray with gangs of two ranks, and the gateway."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from testkit.echo import echo_text
from testkit.system import System, request, try_request
from testkit.waiting import wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


def group_of(up: System) -> dict:
    """The only group of the pool ``echo``, once all killed groups are marked lost."""

    def only() -> dict | None:
        groups = [group for group in request(f"{up.url}/v1/pools/echo")["groups"] if group["state"] != "lost"]
        return groups[0] if len(groups) == 1 else None

    return wait_until(only, 60, "one group")


def restarted(up: System, name: str, before: int) -> int:
    """The pid of the new process ``name``, once it has replaced the process ``before``."""
    return wait_until(lambda: _other(up.state()["pids"].get(name), before), 180, f"{name} to restart")


def _other(pid: int | None, before: int) -> int | None:
    return pid if pid not in (None, before) else None


def test_a_task_runs_on_a_serve_gang_of_two_ranks(up: System) -> None:
    """The task goes from HTTP through Redis to the gang, which runs a collective in each step and stores the file."""
    task = up.wait(up.submit(message="hello", steps=5, all_ranks=True))
    (artifact,) = task["artifacts"]
    download = subprocess.run(["curl", "-sfL", up.url + artifact["url"]], check=True, capture_output=True)
    assert download.stdout == echo_text("hello", 5)
    group = group_of(up)
    assert (group["ranks"], len(set(group["pids"])), group["loads"]) == (2, 2, 1)
    wake = wait_until(
        lambda: request(f"{up.url}/v1/pools/echo")["wake"]["last"], 30, "the report of the wake"
    )
    assert {"ray_s", "process_group_s", "model_s", "warm_up_s"} <= set(wake)
    assert wake["total_s"] >= wake["ray_s"] > wake["model_s"], "the start of Ray is part of the wake"
    assert "pool echo: ray" in up.output_text()


def test_the_api_on_ray_serves_the_same_tasks(up: System) -> None:
    """`APIEntrypoint` runs in a Serve application of its own and sees the same tasks."""
    listed = wait_until(
        lambda: try_request(f"{up.state()['api_url']}/v1/tasks?pool=echo"), 180, "APIEntrypoint"
    )
    assert listed["data"]


def test_the_log_of_a_rank_is_in_its_file(up: System) -> None:
    """The file has lines about the task, and each rank's error with its traceback, although Serve replaces stderr."""
    task = up.wait(up.submit(message="hi", steps=3, fail_at=2, fail_kind="permanent"), "failed")["id"]

    def lines() -> list[str]:
        files = up.ray_folder.glob("session_latest/logs/worker-*.err")
        return [line for file in files for line in file.read_text(errors="replace").splitlines()]

    def about(text: str) -> list[str]:
        return [line for line in lines() if text in line and f"task={task}" in line]

    def all_written() -> bool:  # a line is written only after the change that it reports
        return len(about("change=")) >= 2 and len(about("the task failed")) >= 2

    wait_until(all_written, 30, "the lines about the task")
    changes = about("change=")
    assert [re.findall(r"change=(\w+)", line) for line in changes] == [["started"], ["failed"]]
    assert all("rank=0" in line and "pool=echo" in line for line in changes)
    errors = about("the task failed")
    assert {re.findall(r"rank=(\d)", line)[0] for line in errors} == {"0", "1"}
    for line in errors:
        assert lines()[lines().index(line) + 1] == "Traceback (most recent call last):"


def test_a_running_task_survives_a_kill_of_valkey(up: System) -> None:
    """Valkey restarts on the same port with the same data, and the task needs no second attempt."""
    port = (up.folder / "valkey" / "port").read_text()
    task = up.submit(message="through", steps=40, step_s=0.1, all_ranks=True)
    wait_until(lambda: request(f"{up.url}/v1/tasks/{task}").get("progress"), 60, "the first step")
    before = up.kill_valkey()
    restarted(up, "valkey", before)
    assert (up.folder / "valkey" / "port").read_text() == port
    finished = up.wait(task)
    assert (finished["attempt"], finished["strikes"]) == (1, 0)


def test_a_killed_gateway_restarts_on_its_port(up: System) -> None:
    """The running task is not affected."""
    before, url = up.state()["pids"]["gateway"], up.url
    task = up.submit(message="on", steps=20, step_s=0.1)
    os.kill(before, signal.SIGKILL)
    restarted(up, "gateway", before)
    wait_until(lambda: try_request(f"{url}/healthz"), 180, "the gateway on its port")
    assert up.wait(task)["attempt"] == 1


def test_a_killed_rank_is_a_strike_and_the_gang_restarts(up: System) -> None:
    """After a kill -9 of rank 1, Serve restarts the whole gang, and the task succeeds in its second attempt."""
    pids = group_of(up)["pids"]
    task = up.submit(message="twice", steps=100, step_s=0.05, all_ranks=True)
    wait_until(lambda: request(f"{up.url}/v1/tasks/{task}").get("progress"), 60, "the first step")
    os.kill(pids[1], signal.SIGKILL)
    finished = up.wait(task, timeout=400)
    assert (finished["attempt"], finished["strikes"]) == (2, 1)
    assert not set(group_of(up)["pids"]) & set(pids)


def test_up_leaves_nothing_behind_when_it_stops(up: System) -> None:
    """No process, open port or shared memory remains, and no file of Ray in the user's home."""
    state = up.state()
    up.process.send_signal(signal.SIGINT)
    assert up.process.wait(180) == 0
    assert "no processes are left" in up.output_text()
    assert not up.remaining_processes()
    for url in (state["url"], state["api_url"]):
        assert try_request(f"{url}/healthz") is None
    assert not [name for name in up.shared_memory() - up.memory if "ray" in name or "plasma" in name]
    assert not up.ray_folder.exists()
    assert (up.folder / "logs" / "ray").exists()
    assert not list(Path(up.home).iterdir())
