"""Checks how xdist distributes tests: which tests it sends together to one worker, and in which order."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from testkit.xdist_distribution import LONGEST, SHARED, scheduling_unit

TESTS = Path(__file__).parents[1]
REPOSITORY = TESTS.parents[2]


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


def test_the_longest_files_run_first_and_all_tests_run_once(tmp_path: Path) -> None:
    """The test checks the order in one process, and then that two workers together run the tests of all files."""
    for name in ("api/test_a.py", "local/test_b.py", *LONGEST):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("def test_one(): ...\n\n\ndef test_two(): ...\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    assert _files(tmp_path, "--collect-only", "-q") == [*LONGEST, "api/test_a.py", "local/test_b.py"]
    options = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder", "-v")
    assert set(_files(tmp_path, *options)) == {*LONGEST, "api/test_a.py", "local/test_b.py"}


def _files(folder: Path, *options: str) -> list[str]:
    """Run pytest in the folder, and check that it prints both tests of each file once.

    :returns: the files, in the order in which pytest prints their tests.
    """
    plugins = ["-p", "testkit.xdist_distribution", "-p", "no:cacheprovider", "--import-mode=importlib"]
    result = subprocess.run(
        [sys.executable, "-m", "pytest", *plugins, *options],
        check=False,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(TESTS.parent)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    lines = result.stdout.splitlines()
    lines = [
        line for line in lines if "PASSED" in line
    ] or lines  # xdist also prints a line when a test begins
    tests = [word for line in lines for word in line.split() if "::" in word]
    files = list(dict.fromkeys(test.partition("::")[0] for test in tests))
    assert sorted(tests) == sorted(
        f"{file}::{test}" for file in files for test in ("test_one", "test_two")
    ), result.stdout
    return files


def test_the_longest_files_exist() -> None:
    for name in LONGEST:
        folder = REPOSITORY if name.startswith("controlplane-sdk/") else TESTS
        assert (folder / name).is_file()
