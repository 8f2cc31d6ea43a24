"""Tests of the plugin that does not import a test file if `-m` deselects all of its tests."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from testkit.marked_files import may_select

TEST, SYSTEMS = "not gpu and not system and not heavy", "(system or heavy) and not gpu"
PLAIN = "def test_a(): pass"
ONE = "@pytest.mark.system\ndef test_a(): pass\ndef test_b(): pass"
ALL = "pytestmark = [pytest.mark.system, pytest.mark.timeout(9)]\ndef test_a(): pass"
BOTH = "pytestmark = pytest.mark.system\n@pytest.mark.gpu\ndef test_a(): pass\ndef test_b(): pass"
GPU = "pytestmark = [\n    pytest.mark.gpu,\n]\n@pytest.mark.system\ndef test_a(): pass"


@pytest.mark.parametrize(
    ("text", "test", "systems"),
    [(PLAIN, True, False), (ONE, True, True), (ALL, False, True), (BOTH, False, True), (GPU, False, False)],
    ids=["no mark", "one test", "all tests", "all tests, one has another", "all tests have gpu"],
)
def test_a_file_is_read_if_one_of_its_tests_may_be_selected(text: str, test: bool, systems: bool) -> None:
    assert may_select(TEST, text) == test
    assert may_select(SYSTEMS, text) == systems


def test_an_expression_with_other_marks_selects_any_file() -> None:
    """Other marks may come from a conftest, or from a helper."""
    assert may_select("not slow", ALL)
    assert may_select("system and slow", PLAIN)


def test_a_deselected_file_is_imported_only_if_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = system: starts a system\n")
    (tmp_path / "test_plain.py").write_text(PLAIN)
    (tmp_path / "test_whole.py").write_text("import pytest, sys\nprint('imported', file=sys.stderr)\n" + ALL)

    def collected(*arguments: str) -> str:
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "testkit.marked_files",
            "-p",
            "no:cacheprovider",
        ]
        result = subprocess.run(
            [*command, "--collect-only", "-s", "-m", "not system", *arguments],
            cwd=tmp_path, check=False, capture_output=True, text=True, timeout=120,
            env={"PYTHONPATH": str(Path(__file__).parents[2])},
        )  # fmt: skip
        return result.stdout + result.stderr

    found = collected()
    assert "test_plain.py::test_a" in found
    assert "imported" not in found
    assert "imported" in collected("test_whole.py")
    assert "imported" in collected("test_whole.py::test_a")
