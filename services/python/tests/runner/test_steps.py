"""`.ci/steps`: what a run of CI prints at its end, and that nothing runs on beside it."""

from __future__ import annotations

import re
import subprocess
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
    done = subprocess.run(
        ["bash", "-c", HEAD + script], cwd=cwd, check=False, capture_output=True, text=True, timeout=60
    )
    _, _, table = done.stdout.partition("where the minutes went")
    return done.returncode, re.findall(r"^ *\d+:\d\d  (.+)$", table, re.MULTILINE)


def test_every_step_is_in_the_table_also_the_one_that_ran_beside_the_others(tmp_path: Path) -> None:
    code, rows = run("beside image true; step tests true; step 'the rest' join", tmp_path)
    assert (code, rows) == (0, ["tests", "image", "the rest", "in all"])


def test_a_step_that_fails_ends_the_run_and_is_named_in_the_table(tmp_path: Path) -> None:
    code, rows = run("two() { false; true; }; step one true; step two two; step three true", tmp_path)
    assert (code, rows) == (1, ["one", "two: FAILED", "in all"])


def test_what_fails_beside_the_others_fails_the_run_when_it_is_joined(tmp_path: Path) -> None:
    code, rows = run(
        "bad() { false; true; }; beside image bad; step tests true; step 'the rest' join", tmp_path
    )
    assert (code, rows) == (1, ["tests", "image", "the rest: FAILED", "in all"])


def test_what_runs_beside_a_step_that_fails_is_stopped(tmp_path: Path) -> None:
    """The shell waits for its end before it prints the table."""
    code, rows = run("beside image sleep 600; step tests false", tmp_path)
    assert (code, rows) == (1, ["image: STOPPED", "tests: FAILED", "in all"])
