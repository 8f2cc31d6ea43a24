"""Tests of ``.ci/steps``: the table at the end of a CI run, steps that run in the background, and commands with a small
share of the processors."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

STEPS = Path(__file__).parents[4] / ".ci" / "steps"
HEAD = f"""
set -euo pipefail
. {STEPS}
finish() {{ local code=$?; stop_beside; print_steps "$code"; }}
trap finish EXIT
"""
GROUPS = Path("/sys/fs/cgroup/cpu")


def run(script: str, cwd: Path) -> tuple[int, list[str]]:
    result = bash(script, cwd)
    return result.returncode, [name for _, name in rows_of(result.stdout)]


def bash(script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", HEAD + script], cwd=cwd, check=False, capture_output=True, text=True, timeout=60
    )


def rows_of(output: str) -> list[tuple[int | None, str]]:
    """For each step in the table at the end of this output: how busy the processors were, in percent, and its name."""
    _, _, table = output.partition("minutes and seconds of each step")
    rows = re.findall(r"^ *\d+:\d\d (?: *(\d+) %| {5})  (.+)$", table, re.MULTILINE)
    return [(int(busy) if busy else None, name.strip()) for busy, name in rows]


def test_the_table_has_every_step_and_the_steps_in_the_background(tmp_path: Path) -> None:
    code, rows = run(
        "beside a image true; beside b docs true; step tests true; step 'the docs' join b; step 'the rest' join a",
        tmp_path,
    )
    background = ["docs, in the background", "the docs", "image, in the background", "the rest"]
    assert (code, rows) == (0, ["tests", *background, "total"])


def test_each_step_in_the_background_has_its_own_output(tmp_path: Path) -> None:
    """The output is printed when the step is joined."""
    result = bash("beside a one echo first; beside b two echo second; join b; echo then; join a", tmp_path)
    printed = [line for line in result.stdout.splitlines() if line in ("first", "second", "then")]
    assert (result.returncode, printed) == (0, ["second", "then", "first"])


def test_a_failed_step_ends_the_run_and_is_marked_in_the_table(tmp_path: Path) -> None:
    code, rows = run("two() { false; true; }; step one true; step two two; step three true", tmp_path)
    assert (code, rows) == (1, ["one", "two: FAILED", "total"])


def test_a_failed_background_step_fails_the_run_when_it_is_joined(tmp_path: Path) -> None:
    script = "bad() { false; true; }; beside a image bad; step tests true; step 'the rest' join a"
    assert run(script, tmp_path) == (1, ["tests", "image, in the background", "the rest: FAILED", "total"])


def test_the_background_steps_are_stopped_when_another_step_fails(tmp_path: Path) -> None:
    """The shell waits for the background steps to end before it prints the table."""
    code, rows = run("beside a image sleep 600; beside b docs sleep 600; step tests false", tmp_path)
    stopped = {f"{name}: STOPPED, in the background" for name in ("image", "docs")}
    assert (code, set(rows[:2]), rows[2:]) == (1, stopped, ["tests: FAILED", "total"])


def test_the_times_do_not_jump_with_the_clock_of_the_shell(tmp_path: Path) -> None:
    result = bash("jump() { SECONDS=5000; }; step one jump", tmp_path)
    assert result.returncode == 0, result.stderr
    assert "83:2" not in result.stdout


def test_the_table_says_how_busy_the_processors_were(tmp_path: Path) -> None:
    """Processes whose parent has ended count too."""
    burn = f"burn() {{ {sys.executable} -c 'import time\nwhile time.process_time() < 1.2: pass'; }}; "
    result = bash(burn + "(burn &); step long sleep 2; step short true", tmp_path)
    assert result.returncode == 0, result.stderr
    busy = {name: share for share, name in rows_of(result.stdout)}
    assert busy["short"] is None
    assert busy["long"] is not None
    assert busy["long"] >= 30 // (os.cpu_count() or 1)


def test_a_command_with_a_small_share_is_nice_and_its_exit_code_counts(tmp_path: Path) -> None:
    result = bash("with_small_share 50 nice; with_small_share 50 sh -c 'exit 7' || echo code $?", tmp_path)
    assert result.stdout.split()[:3] == ["19", "code", "7"]


@pytest.mark.skipif(
    not os.access(GROUPS, os.W_OK), reason="no control groups of version 1 that this user may change"
)
def test_a_small_share_also_holds_for_processes_that_start_a_session(tmp_path: Path) -> None:
    """The control group is removed at the end."""
    group = f"daybreak-ci-{os.getpid()}"
    script = f"with_small_share {os.getpid()} setsid cat /proc/self/cgroup; cat {GROUPS}/{group}/cpu.shares"
    result = bash(f"{script}; remove_control_groups", tmp_path)
    assert f":/{group}\n" in result.stdout
    assert f"\n{os.getpid()}\n" in result.stdout
    assert not (GROUPS / group).exists()
