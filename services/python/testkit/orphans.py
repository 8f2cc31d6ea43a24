"""A pytest plugin: a run that leaves a process behind fails, and names the process and the test that started it.

Every process that a test starts inherits an environment variable with the mark of its run. Servers that write their
title over their environment (Redis, Valkey, workers of Ray) are recognised by their parent, or by a working directory
below the run's temporary folder. After all fixtures are closed, processes get some time to end by themselves. Those
that stay fail the run, and are killed. Each xdist worker checks what it started itself and reports to the controller,
which checks once more when all workers have ended.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from testkit import forkserver

MARK = "_PYTEST_RUN"
"""Name of the variable. A run inside a test appends to the mark of the run around it, which so finds both."""
GRACE_S = "orphan_grace_s"
"""Name of the option in pytest's configuration."""
_left = pytest.StashKey[list[str]]()
_mark = pytest.StashKey[str]()


@dataclass(frozen=True, slots=True)
class Run:
    """How the processes of this run are recognised."""

    mark: str
    folder: Path | None
    """Where temporary folders of tests lie."""

    def processes(self) -> list[psutil.Process]:
        """Those that are alive, without this one and those that it is a descendant of."""
        me = psutil.Process()
        found = {one.pid: one for one in psutil.process_iter() if self._started(one)}
        for parent in [me, *found.values()]:
            found |= {one.pid: one for one in _descendants(parent)}
        for pid in (forkserver.tracker(), me.pid, *(one.pid for one in me.parents())):
            found.pop(pid, None)
        return [one for one in found.values() if _alive(one)]

    def _started(self, process: psutil.Process) -> bool:
        try:
            mark = process.environ().get(MARK, "")
            if mark == self.mark or mark.startswith(f"{self.mark}/"):
                return True
            return self.folder is not None and Path(process.cwd()).is_relative_to(self.folder)
        except (psutil.Error, OSError):
            return False


def described(process: psutil.Process) -> str:
    """The process in a line: its pid, its command and the test that started it."""
    try:
        command = " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        command = "a process that has ended meanwhile"
    try:
        test = process.environ().get("PYTEST_CURRENT_TEST", "")
    except (psutil.Error, OSError):
        test = ""
    return f"{process.pid}: {command[:200]}" + (f"; started by {test}" if test else "")


def end(run: Run, grace_s: float) -> list[str]:
    """Wait until no process of the run is left. Those that stay are killed, and described."""
    until = time.monotonic() + grace_s
    while (left := run.processes()) and time.monotonic() < until:
        psutil.wait_procs(left, timeout=0.2)
    said = [described(one) for one in left]
    for one in left:
        try:
            one.kill()
        except psutil.Error:
            continue
    psutil.wait_procs(left, timeout=10)
    return said


def pytest_addoption(parser: pytest.Parser) -> None:
    about = "seconds that processes may take to end after the last fixture was closed, on a busy machine"
    parser.addini(GRACE_S, about, default="20")


def pytest_configure(config: pytest.Config) -> None:
    outer = os.environ.get(MARK)
    own = f"{os.getpid()}.{time.time_ns()}"
    os.environ[MARK] = config.stash[_mark] = f"{outer}/{own}" if outer else own
    config.stash[_left] = []


def pytest_unconfigure(config: pytest.Config) -> None:
    outer, _, _ = config.stash[_mark].rpartition("/")
    os.environ.pop(MARK, None)
    if outer:
        os.environ[MARK] = outer


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """After the fixtures: xdist's controller comes here when all its workers have ended."""
    config = session.config
    forkserver.stop()
    # Of a controller, the folder holds those of its workers.
    factory = getattr(config, "_tmp_path_factory", None)
    folder = getattr(factory, "_basetemp", None)
    config.stash[_left] += end(Run(config.stash[_mark], folder), float(config.getini(GRACE_S)))
    if hasattr(config, "workeroutput"):
        config.workeroutput["orphans"] = config.stash[_left]
    elif config.stash[_left] and session.exitstatus in (
        pytest.ExitCode.OK,
        pytest.ExitCode.NO_TESTS_COLLECTED,
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Called by xdist's controller for each worker that has ended."""
    node.config.stash[_left] += getattr(node, "workeroutput", {}).get("orphans", [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if left := config.stash[_left]:
        terminalreporter.section("PROCESSES LEFT BEHIND", red=True, bold=True)
        terminalreporter.line(
            "The tests left these processes, which have been killed. Mend the tests' fixtures:"
        )
        for one in left:
            terminalreporter.line(f"  {one}")


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
