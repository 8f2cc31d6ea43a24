"""Tests of the supervisor and the instance with small programs that start, die and restart."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daybreak_server.local import reaper
from daybreak_server.local.instance import Instance, InstanceError, settings_file
from daybreak_server.local.supervisor import ProcessFailedError, ProcessSpec, ProcessSupervisor
from daybreak_server.local.up import make_plan
from daybreak_server.settings.child_settings import read_settings
from daybreak_server.settings.tree import Settings
from testkit.system import System
from testkit.waiting import wait_until

WITH_CHILD = """
import subprocess, sys, time, pathlib
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
pathlib.Path(sys.argv[1]).write_text(str(child.pid))
time.sleep(600)
"""


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[Instance]:
    instance = Instance(tmp_path / "data")
    instance.open()
    yield instance
    assert instance.close() == []


@pytest.fixture
def supervise(instance: Instance) -> Iterator[Callable[..., ProcessSupervisor]]:
    """Starts supervisors, and stops them after the test."""
    supervisors: list[ProcessSupervisor] = []

    def start(*specs: ProcessSpec) -> ProcessSupervisor:
        supervisors.append(ProcessSupervisor(specs, say=print))
        supervisors[-1].start()
        return supervisors[-1]

    yield start
    for supervisor in supervisors:
        supervisor.stop()


def process(
    instance: Instance, name: str, *command: str, ready: Callable[[], bool], **options: object
) -> ProcessSpec:
    return ProcessSpec(
        name=name,
        command=(sys.executable, "-c", *command),
        env=instance.environment(name),
        log=instance.logs / f"{name}.log",
        ready=ready,
        **options,
    )


def test_a_failed_start_is_reported_with_the_end_of_the_log(
    instance: Instance, supervise: Callable[..., ProcessSupervisor]
) -> None:
    broken = process(instance, "broken", "import sys; sys.exit('no such model')", ready=lambda: False)
    with pytest.raises(ProcessFailedError, match="no such model"):
        supervise(broken).wait_ready(stopping=lambda: False)


def test_a_process_that_never_becomes_ready_is_ended(
    instance: Instance, supervise: Callable[..., ProcessSupervisor]
) -> None:
    """The start fails after ``ready_s`` seconds."""
    silent = process(instance, "silent", "import time; time.sleep(600)", ready=lambda: False, ready_s=1.0)
    with pytest.raises(ProcessFailedError, match="does not answer"):
        supervise(silent).wait_ready(stopping=lambda: False)
    assert not reaper.tagged(instance.tag)


def test_a_process_that_never_answers_is_not_tried_forever(
    instance: Instance, supervise: Callable[..., ProcessSupervisor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every failure counts, even one that comes a minute after the start, so the supervisor gives up in the end."""
    monkeypatch.setattr("daybreak_server.local.supervisor._STABLE_S", 0.2)
    code = "import time; print('starting', flush=True); time.sleep(600)"
    silent = process(instance, "silent", code, ready=lambda: False, ready_s=0.5, tries=3)
    with pytest.raises(ProcessFailedError, match="does not answer"):
        supervise(silent).wait_ready(stopping=lambda: False)
    assert silent.log.read_text().count("starting") == 3


def test_the_children_of_a_dead_process_are_ended_before_it_restarts(
    instance: Instance, tmp_path: Path, supervise: Callable[..., ProcessSupervisor]
) -> None:
    """A kill -9 of a parent leaves its child running, so the supervisor ends the child first."""
    pid_file = tmp_path / "child"
    supervisor = supervise(process(instance, "p", WITH_CHILD, str(pid_file), ready=pid_file.exists))
    assert supervisor.wait_ready(stopping=lambda: False)
    supervisor.mark_started()
    first, child = supervisor.pids()["p"], int(wait_until(pid_file.read_text, 30, "the child's pid"))
    pid_file.unlink()
    os.kill(first, signal.SIGKILL)
    wait_until(
        lambda: supervisor.restarts()["p"] == 1 and supervisor.is_ready("p"), 60, "the process to restart"
    )
    assert supervisor.pids()["p"] != first
    assert child not in reaper.tagged(instance.tag)
    supervisor.stop()
    assert not reaper.tagged(instance.tag)


def test_a_restart_spares_the_process_whose_name_only_begins_alike(
    instance: Instance, supervise: Callable[..., ProcessSupervisor]
) -> None:
    """The restart of `p-1` does not end `p-10`."""
    sleep = "import time; time.sleep(600)"
    supervisor = supervise(*(process(instance, name, sleep, ready=lambda: True) for name in ("p-1", "p-10")))
    assert supervisor.wait_ready(stopping=lambda: False)
    supervisor.mark_started()
    before = supervisor.pids()
    assert reaper.tagged(instance.environment("p-1")[reaper.INSTANCE_TAG]) == [before["p-1"]]
    os.kill(before["p-1"], signal.SIGKILL)
    wait_until(
        lambda: supervisor.restarts()["p-1"] == 1 and supervisor.is_ready("p-1"), 60, "the process to restart"
    )
    assert supervisor.pids()["p-10"] == before["p-10"]
    assert supervisor.restarts()["p-10"] == 0


def test_an_instance_ends_the_processes_of_a_killed_predecessor(systems: Callable[..., System]) -> None:
    """The test kills `dev` and its reaper, so Valkey keeps running. The next instance in the folder ends it."""
    dev = systems("dev")
    dev.ready(120)
    valkey = dev.state()["pids"]["valkey"]
    watchers = [pid for pid in _children(dev.process.pid) if pid != valkey]
    for pid in (*watchers, dev.process.pid):
        os.kill(pid, signal.SIGKILL)
    dev.process.wait(30)
    assert dev.remaining_processes() == [valkey]
    following = Instance(dev.folder)
    assert following.open() == [valkey]
    assert not dev.remaining_processes()
    following.close()


def _children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_an_http_port_in_use_is_refused_with_advice(instance: Instance) -> None:
    """The plan fails before anything is started."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = Settings.model_validate(
            {"data_dir": str(instance.folder), "http": {"port": taken.getsockname()[1]}}
        )
        with pytest.raises(InstanceError, match="PORT="):
            make_plan(settings, instance)


def test_the_settings_file_of_processes_is_complete_and_private(instance: Instance) -> None:
    """Only the owner may read the file, because the settings may contain a password."""
    settings = Settings.model_validate(
        {
            "data_dir": str(instance.folder),
            "redis": {"url": "redis://:secret@h:1/0"},
            "pools": {"echo": {"ranks": 2}},
        }
    )
    file = settings_file(instance, settings)
    assert read_settings(file) == settings
    assert file.stat().st_mode & 0o077 == 0


def test_rays_folder_is_short_enough_for_its_sockets(tmp_path: Path) -> None:
    """The path of a socket has at most 107 characters, and Ray adds about 65."""
    deep = Instance(tmp_path / ("d" * 60))
    assert len(str(deep.ray_folder())) <= 40
