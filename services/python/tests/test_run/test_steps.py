"""Tests of ``.ci/steps``: the table at the end of a CI run, and the step that runs in the background."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

STEPS = Path(__file__).parents[4] / ".ci" / "steps"
HEAD = f"""
set -euo pipefail
. {STEPS}
beside_log=beside.log
finish() {{ local code=$?; stop_beside; print_steps "$code"; }}
trap finish EXIT
"""


def run(script: str, cwd: Path) -> tuple[int, list[str]]:
    result = bash(script, cwd)
    return result.returncode, [name for _, name in rows_of(result.stdout)]


def bash(script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", HEAD + script], cwd=cwd, check=False, capture_output=True, text=True, timeout=60
    )


def rows_of(output: str) -> list[tuple[str, str]]:
    """The CPU time and the name of each step in the table at the end of this output."""
    _, _, table = output.partition("minutes and seconds of each step")
    return re.findall(r"^ *\d+:\d\d +(\d+:\d\d)  (.+)$", table, re.MULTILINE)


def test_the_table_has_every_step_and_the_background_step(tmp_path: Path) -> None:
    code, rows = run("beside image true; step tests true; step 'the rest' join", tmp_path)
    assert (code, rows) == (0, ["tests", "image", "the rest", "total"])


def test_a_failed_step_ends_the_run_and_is_marked_in_the_table(tmp_path: Path) -> None:
    code, rows = run("two() { false; true; }; step one true; step two two; step three true", tmp_path)
    assert (code, rows) == (1, ["one", "two: FAILED", "total"])


def test_a_failed_background_step_fails_the_run_when_it_is_joined(tmp_path: Path) -> None:
    code, rows = run(
        "bad() { false; true; }; beside image bad; step tests true; step 'the rest' join", tmp_path
    )
    assert (code, rows) == (1, ["tests", "image", "the rest: FAILED", "total"])


def test_the_background_step_is_stopped_when_another_step_fails(tmp_path: Path) -> None:
    """The shell waits for the background step to end before it prints the table."""
    code, rows = run("beside image sleep 600; step tests false", tmp_path)
    assert (code, rows) == (1, ["image: STOPPED", "tests: FAILED", "total"])


def test_cpu_time_is_counted_for_the_step_that_used_it(tmp_path: Path) -> None:
    """A background step's CPU time is not counted for the step that waits for it."""
    burn = f"burn() {{ {sys.executable} -c 'import time\nwhile time.process_time() < 1.5: pass'; }}; "
    result = bash(burn + "beside image burn; step tests true; step 'the rest' join; step more true", tmp_path)
    assert result.returncode == 0, result.stderr
    spent = {name: cpu != "0:00" for cpu, name in rows_of(result.stdout)}
    assert spent == {"tests": False, "more": False, "image": True, "the rest": False, "total": True}
