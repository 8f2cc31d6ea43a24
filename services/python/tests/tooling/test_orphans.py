"""Tests that a run fails if its tests leave a process running, even if the process has another parent by then."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from testkit.processes import alive

TESTS = Path(__file__).parents[1]
PYTHON = os.path.abspath(sys.executable)
"""The interpreter's path without ``..``, as child processes print it. If pytest was started by a relative path,
``sys.executable`` contains ``..``. ``Path.resolve`` would follow the link out of the virtual environment."""
HEAD = """
import multiprocessing, os, subprocess, sys
from pathlib import Path
from testkit import forkserver
SLEEP = [sys.executable, "-c", "import time; time.sleep(600)", "left-behind"]
def note(pid):
    Path(os.environ["NOTES"]).write_text(str(pid))
"""
ORPHANS = {
    "a child": """
def test_it(): note(subprocess.Popen(SLEEP).pid)
""",
    "a child of a process that has ended": """
def test_it():
    code = "import subprocess, sys; print(subprocess.Popen(sys.argv[1:]).pid)"
    with subprocess.Popen([sys.executable, "-c", code, *SLEEP], stdout=subprocess.PIPE) as parent:
        note(int(parent.stdout.readline()))
""",
    "a server that has overwritten its environment": """
def test_it(tmp_path):
    code = "import subprocess, sys; print(subprocess.Popen(sys.argv[2:], cwd=sys.argv[1], env={}).pid)"
    command = [sys.executable, "-c", code, tmp_path, *SLEEP]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        note(int(parent.stdout.readline()))
""",
}


def run(folder: Path, code: str, *options: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_inside.py").write_text(HEAD + code)
    command = [PYTHON, "-m", "pytest", "-p", "testkit.orphans", "-p", "no:cacheprovider", "-q"]
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return subprocess.run(
        [
            *command,
            "--rootdir",
            str(folder),
            "-c",
            os.devnull,
            "-o",
            "orphan_grace_s=0",
            *options,
            str(folder),
        ],
        env={**outer, "PYTHONPATH": str(TESTS.parent), "NOTES": str(folder / "pid")},
        cwd=folder,
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=120,
    )


@pytest.mark.parametrize("workers", ["0", "1"])
@pytest.mark.parametrize("code", ORPHANS.values(), ids=ORPHANS)
def test_an_orphan_process_fails_the_run_and_is_named_and_killed(
    code: str, workers: str, tmp_path: Path
) -> None:
    result = run(tmp_path, code, "-n", workers)
    pid = int((tmp_path / "pid").read_text())
    assert result.returncode == pytest.ExitCode.TESTS_FAILED, result.stdout
    assert "1 passed" in result.stdout
    assert f"{pid}: {PYTHON} -c import time; time.sleep(600) left-behind" in result.stdout
    assert not alive(pid)


def test_the_test_that_started_an_orphan_is_named(tmp_path: Path) -> None:
    result = run(tmp_path, ORPHANS["a child"])
    assert "started by test_inside.py::test_it (call)" in result.stdout


def test_a_run_without_orphans_passes_and_its_fork_server_ends_with_it(tmp_path: Path) -> None:
    code = """
def test_it():
    process = forkserver.context("json").Process(target=print)
    process.start()
    process.join()
    note(multiprocessing.forkserver._forkserver._forkserver_pid)
"""
    result = run(tmp_path, code)
    assert result.returncode == 0, result.stdout
    assert not psutil.pid_exists(int((tmp_path / "pid").read_text()))
