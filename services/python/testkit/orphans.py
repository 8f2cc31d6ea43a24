"""A pytest plugin. A run that leaves processes behind fails. The report names each process and, if known, its test.

A process that a test starts inherits an environment variable with the mark of the run, unless the test replaces the
process's whole environment. Redis, Valkey and Ray's workers write their process title over their environment. A
process without the variable is recognised by its parent, or by a working directory below the run's temporary folder.
After all fixtures are closed, processes get some time to end by themselves. Processes that remain fail the run and are
killed. Each xdist worker checks what it started and reports to the controller, which checks once more after all workers
have ended.
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
from testkit.processes import alive

MARK = "_PYTEST_RUN"
"""The variable's name. A pytest run that a test starts appends its own mark to the outer run's mark. So both runs find
the processes of the inner run."""
GRACE_S = "orphan_grace_s"
"""The option's name in pytest's configuration."""
_leftovers = pytest.StashKey[list[str]]()
_mark = pytest.StashKey[str]()


@dataclass(frozen=True, slots=True)
class Run:
    """Recognises the processes of this run."""

    mark: str
    folder: Path | None
    """The folder that contains the temporary folders of the tests."""

    def processes(self) -> list[psutil.Process]:
        """The run's living processes, except this process, its ancestors and the fork server's resource tracker."""
        me = psutil.Process()
        processes = {process.pid: process for process in psutil.process_iter() if self._started(process)}
        for parent in [me, *processes.values()]:
            processes |= {child.pid: child for child in _descendants(parent)}
        for pid in (forkserver.tracker_pid(), me.pid, *(parent.pid for parent in me.parents())):
            processes.pop(pid, None)
        return [process for process in processes.values() if alive(process)]

    def _started(self, process: psutil.Process) -> bool:
        try:
            mark = process.environ().get(MARK, "")
            if mark == self.mark or mark.startswith(f"{self.mark}/"):
                return True
            return self.folder is not None and Path(process.cwd()).is_relative_to(self.folder)
        except (psutil.Error, OSError):
            return False


def describe(process: psutil.Process) -> str:
    """One line with the pid, the command and, if known, the test that started it."""
    try:
        command = " ".join(process.cmdline()) or process.name()
    except psutil.Error:
        command = "a process that has just ended"
    try:
        test = process.environ().get("PYTEST_CURRENT_TEST", "")
    except (psutil.Error, OSError):
        test = ""
    return f"{process.pid}: {command[:200]}" + (f"; started by {test}" if test else "")


def kill_leftovers(run: Run, grace_s: float) -> list[str]:
    """Wait up to ``grace_s`` until no process of the run is left. Kill those that remain, and describe them."""
    deadline = time.monotonic() + grace_s
    while (leftovers := run.processes()) and time.monotonic() < deadline:
        psutil.wait_procs(leftovers, timeout=0.2)
    descriptions = [describe(process) for process in leftovers]
    for process in leftovers:
        try:
            process.kill()
        except psutil.Error:
            continue
    psutil.wait_procs(leftovers, timeout=10)
    return descriptions


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the ini option ``orphan_grace_s``."""
    about = "seconds for processes to end after the last fixture was closed"
    parser.addini(GRACE_S, about, default="20")


def pytest_configure(config: pytest.Config) -> None:
    """Set the mark of this run in the environment. Inside another run, append it to that run's mark."""
    outer = os.environ.get(MARK)
    run_mark = f"{os.getpid()}.{time.time_ns()}"
    os.environ[MARK] = config.stash[_mark] = f"{outer}/{run_mark}" if outer else run_mark
    config.stash[_leftovers] = []


def pytest_unconfigure(config: pytest.Config) -> None:
    """Restore the mark of the outer run, or remove the variable."""
    outer, _, _ = config.stash[_mark].rpartition("/")
    os.environ.pop(MARK, None)
    if outer:
        os.environ[MARK] = outer


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Runs after all fixtures are closed; in xdist's controller, after all workers have ended."""
    config = session.config
    forkserver.stop()
    # A controller's folder contains those of its workers.
    factory = getattr(config, "_tmp_path_factory", None)
    folder = getattr(factory, "_basetemp", None)
    config.stash[_leftovers] += kill_leftovers(
        Run(config.stash[_mark], folder), float(config.getini(GRACE_S))
    )
    if hasattr(config, "workeroutput"):
        config.workeroutput["orphans"] = config.stash[_leftovers]
    elif config.stash[_leftovers] and session.exitstatus in (
        pytest.ExitCode.OK,
        pytest.ExitCode.NO_TESTS_COLLECTED,
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Called by xdist's controller for each worker that has ended."""
    node.config.stash[_leftovers] += getattr(node, "workeroutput", {}).get("orphans", [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """List the processes that were left behind, in their own section of the report."""
    if leftovers := config.stash[_leftovers]:
        terminalreporter.section("PROCESSES LEFT BEHIND", red=True, bold=True)
        terminalreporter.line(
            "The tests left these processes running. They have been killed. Fix the fixtures of the tests:"
        )
        for description in leftovers:
            terminalreporter.line(f"  {description}")


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.Error:
        return []
