"""Runs of pytest in a fork: what they import, how they end, and what they leave behind."""

from __future__ import annotations

from pathlib import Path

import psutil

from testkit.waiting import wait_until
from verification.mutants.pytest_fork import Ran, run_pytest

OPTIONS = ("-q", "-p", "no:cacheprovider", "-rfE")


def run_text(folder: Path, test: str, *, limit_s: float = 120) -> Ran:
    """Run a file with this test. Modules are imported from the folder `source` first."""
    (folder / "test_it.py").write_text(test)
    return run_pytest(folder, [folder / "source"], [*OPTIONS, "test_it.py"], limit_s=limit_s)


def test_our_packages_come_from_the_copy(tmp_path: Path) -> None:
    """This is also true of processes that the test starts. The next run sees a change of the copy."""
    package = tmp_path / "source" / "daybreak_server"
    package.mkdir(parents=True)
    test = """
import subprocess, sys

def test_it():
    import daybreak_server
    assert daybreak_server.VALUE == 1
    subprocess.run([sys.executable, "-c", "import daybreak_server; assert daybreak_server.VALUE == 1"], check=True)
"""
    (package / "__init__.py").write_text("VALUE = 1")
    passed = run_text(tmp_path, test)
    assert (passed.code, passed.timed_out) == (0, False), passed.output
    (package / "__init__.py").write_text("VALUE = 2")
    failed = run_text(tmp_path, test)
    assert (failed.code, failed.timed_out) == (1, False)
    assert "FAILED test_it.py::test_it - AssertionError: assert 2 == 1" in failed.output
    assert not list(tmp_path.rglob("*.pyc")), "a compiled module could hide a bug of the same size"


def test_a_run_that_hangs_is_ended_with_its_processes(tmp_path: Path) -> None:
    """The processes are ended even if they ignore SIGTERM. In this test, `sleep` inherits the ignored signal."""
    ran = run_text(
        tmp_path,
        """
import pathlib, signal, subprocess

def test_it():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    child = subprocess.Popen(["sleep", "600"])
    pathlib.Path("pid").write_text(str(child.pid))
    while True:
        signal.pause()
""",
        limit_s=3,
    )
    assert ran.timed_out
    child = int((tmp_path / "pid").read_text())
    wait_until(lambda: not psutil.pid_exists(child), 10, "the end of the child")
