"""Tests of the scheduling unit: the tests that xdist sends to one worker together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from testkit.xdist_distribution import LONGEST, SHARED, scheduling_unit

TESTS = Path(__file__).parents[1]


def test_tests_of_a_file_stay_together() -> None:
    assert scheduling_unit("tests/api/test_a.py::test_one[x::y]") == scheduling_unit(
        "tests/api/test_a.py::test_two"
    )
    assert scheduling_unit("tests/api/test_a.py::test_one") != scheduling_unit(
        "tests/api/test_b.py::test_one"
    )


def test_files_that_share_a_whole_system_stay_together() -> None:
    assert scheduling_unit("tests/local/test_whole.py::test_one") == scheduling_unit(
        "tests/local/test_readme.py::test_one"
    )
    assert {path.name for path in TESTS.rglob("test_*.py")} >= set(SHARED)


def test_the_longest_files_run_first_and_then_the_slow_ones(tmp_path: Path) -> None:
    for name in ("api/test_a.py", "local/test_b.py", *LONGEST):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        slow = "import pytest\npytestmark = pytest.mark.slow\n" if name == "local/test_b.py" else ""
        file.write_text(f"{slow}def test_it(): ...\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = slow: starts whole systems\n")
    options = ["-p", "testkit.xdist_distribution", "-p", "no:cacheprovider", "--import-mode=importlib"]
    command = [sys.executable, "-m", "pytest", *options, "--collect-only", "-q", str(tmp_path)]
    result = subprocess.run(
        command, check=False, cwd=TESTS.parent, capture_output=True, text=True, timeout=60
    )
    files = [line.partition("::")[0] for line in result.stdout.splitlines() if "::" in line]
    assert files == [*LONGEST, "local/test_b.py", "api/test_a.py"], result.stdout


def test_the_longest_files_exist() -> None:
    assert [name for name in LONGEST if not (TESTS / name).is_file()] == []
