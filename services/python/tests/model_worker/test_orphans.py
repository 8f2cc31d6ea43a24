"""However a worker, a guardian or an engine ends, no process of the engine is left."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from daybreak_server.model_worker import guardian
from testkit.processes import alive
from testkit.waiting import wait_until
from testkit.workers import WorkerGateway, WorkerProcess, model

Start = Callable[..., WorkerProcess]


@pytest.fixture
def forking(gateway: WorkerGateway, start_worker: Start) -> tuple[WorkerProcess, int, int]:
    """A worker whose engine has started a daemon, and the process ids of engine and daemon."""
    gateway.want("w1", model("m", args={"daemon": True, "deaf": True}))
    worker = start_worker(engine={"stop_s": 0.5})
    gateway.wait_for("w1", "m", "ready")
    engine, daemon = int(worker.events("pid")[0]), int(worker.events("daemon")[0])
    assert psutil.Process(daemon).environ() == {}
    assert os.getsid(daemon) not in (os.getsid(engine), os.getsid(worker.process.pid))
    return worker, engine, daemon


def wait_gone(*pids: int) -> None:
    wait_until(lambda: not any(alive(pid) for pid in pids), 30, f"the end of {pids}")


def guardian_of(engine: int) -> int:
    parent = psutil.Process(engine).parent()
    assert parent is not None
    return parent.pid


def test_a_worker_that_is_killed_leaves_no_process(forking: tuple[WorkerProcess, int, int]) -> None:
    worker, engine, daemon = forking
    guardian_pid = guardian_of(engine)
    worker.kill()
    wait_gone(engine, daemon, guardian_pid)


def test_a_worker_that_is_killed_while_it_is_frozen_leaves_no_process(
    forking: tuple[WorkerProcess, int, int],
) -> None:
    worker, engine, daemon = forking
    worker.process.send_signal(signal.SIGSTOP)
    worker.kill()
    wait_gone(engine, daemon)


def test_an_engine_that_dies_takes_what_it_has_started_with_it(
    gateway: WorkerGateway, forking: tuple[WorkerProcess, int, int]
) -> None:
    worker, engine, daemon = forking
    os.kill(engine, signal.SIGKILL)
    wait_gone(daemon)
    wait_until(lambda: len(worker.events("pid")) == 2, 60, "the next engine")
    gateway.wait_for("w1", "m", "ready")


def test_a_guardian_that_is_killed_takes_its_engine_with_it(
    gateway: WorkerGateway, forking: tuple[WorkerProcess, int, int]
) -> None:
    worker, engine, daemon = forking
    gateway.want("w1", model("m", args={"daemon": True, "deaf": True}), model("other"))
    gateway.wait_for("w1", "other", "ready")
    other = int(worker.ask("other").json()["seen"]["pid"])
    os.kill(guardian_of(engine), signal.SIGKILL)
    wait_gone(engine, daemon)
    wait_until(lambda: len(worker.events("daemon")) == 2, 60, "the next engine")
    gateway.wait_for("w1", "m", "ready")
    assert alive(other), "the engine of another guardian has ended"
    zombies = [child for child in psutil.Process(worker.process.pid).children() if not alive(child.pid)]
    assert zombies == []


def test_a_worker_that_ends_in_order_leaves_no_process(forking: tuple[WorkerProcess, int, int]) -> None:
    worker, engine, daemon = forking
    worker.terminate()
    assert worker.process.wait(30) == 0
    assert not alive(engine)
    assert not alive(daemon)


class TestGuardian:
    """Tests of a guardian without a worker."""

    @pytest.fixture
    def run(self) -> Iterator[Callable[..., subprocess.Popen[str]]]:
        started: list[subprocess.Popen[str]] = []

        def run(*command: str, stop_s: float = 5) -> subprocess.Popen[str]:
            started.append(
                subprocess.Popen(
                    guardian.command_of(command, stop_s=stop_s),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    text=True,
                )
            )
            return started[-1]

        yield run
        for process in started:
            process.communicate()

    def test_it_exits_as_its_engine_does(self, run: Callable[..., subprocess.Popen[str]]) -> None:
        assert run("sh", "-c", "exit 3").wait(60) == 3
        assert run("sh", "-c", "kill -9 $$").wait(60) == 128 + 9

    def test_it_names_a_program_that_cannot_be_started(
        self, run: Callable[..., subprocess.Popen[str]], tmp_path: Path
    ) -> None:
        process = run(str(tmp_path / "none"))
        assert process.wait(60) == 127
        assert process.stdout is not None
        assert process.stdout.read() == f"{tmp_path}/none cannot be started: No such file or directory\n"

    def test_an_engine_may_end_by_itself_after_sigterm(
        self, run: Callable[..., subprocess.Popen[str]]
    ) -> None:
        process = run(
            "sh", "-c", "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done", stop_s=60
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "up\n"
        process.terminate()
        assert process.wait(60) == 0
        assert process.stdout.read() == "bye\n"

    def test_an_engine_does_not_inherit_what_tells_the_death_of_the_worker(
        self, run: Callable[..., subprocess.Popen[str]]
    ) -> None:
        process = run("sh", "-c", "readlink /proc/self/fd/0; ls /proc/self/fd | wc -l")
        assert process.wait(60) == 0
        assert process.stdout is not None
        assert process.stdout.read().split()[0] == "/dev/null"
