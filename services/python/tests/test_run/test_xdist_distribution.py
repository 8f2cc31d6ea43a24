"""Tests of the scheduling unit: the tests that xdist sends to one worker together."""

from __future__ import annotations

from pathlib import Path

from testkit.xdist_distribution import SHARED, scheduling_unit

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
