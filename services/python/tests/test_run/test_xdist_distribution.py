"""Tests of how tests are distributed: what xdist sends to one worker together, in which order, and how much at once."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from testkit.xdist_distribution import (
    LONG,
    LONGEST,
    SHARED,
    SYSTEMS_AT_ONCE,
    next_unit,
    pytest_xdist_make_scheduler,
    scheduling_unit,
    starts_systems,
)

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


def test_the_longest_files_run_first_then_the_slow_ones_and_then_the_long_ones(tmp_path: Path) -> None:
    for name in ("api/test_a.py", "local/test_b.py", *LONGEST, *LONG):
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
    assert files == [*LONGEST, "local/test_b.py", *LONG, "api/test_a.py"], result.stdout


def test_the_longest_files_exist_and_start_systems_or_not() -> None:
    def path(name: str) -> Path:
        return (REPOSITORY if name.startswith("controlplane-sdk/") else TESTS) / name

    assert [starts_systems(path(name)) for name in (*LONGEST, *LONG)] == [True] * len(LONGEST) + [
        False
    ] * len(LONG)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("pytestmark = pytest.mark.slow", True),
        ("pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]", True),
        ("pytestmark = [pytest.mark.timeout(900), pytest.mark.tiny]", True),
        ("@pytest.mark.slow\ndef test_it(): ...", True),
        ("@pytest.mark.slowly\ndef test_it(): ...", False),
        ('TEXT = "pytestmark = pytest.mark.slow"', False),
        ("def test_it(): ...", False),
    ],
)
def test_a_file_whose_tests_are_marked_starts_systems(text: str, expected: bool, tmp_path: Path) -> None:
    file = tmp_path / "test_it.py"
    file.write_text(f"import pytest\n\n{text}\n")
    assert starts_systems(file) is expected


def test_a_worker_gets_a_file_that_starts_systems_only_if_few_workers_have_one() -> None:
    waiting = {"a system": True, "another": True, "a file": False}
    assert next_unit(waiting, has_system=False, workers_with_systems=SYSTEMS_AT_ONCE - 1) == "a system"
    assert next_unit(waiting, has_system=True, workers_with_systems=SYSTEMS_AT_ONCE) == "a system"
    assert next_unit(waiting, has_system=False, workers_with_systems=SYSTEMS_AT_ONCE) == "a file"
    only = {"a system": True}
    assert next_unit(only, has_system=False, workers_with_systems=SYSTEMS_AT_ONCE) == "a system"


class Worker:
    """What xdist's scheduler calls of a worker. It records the tests that it gets."""

    def __init__(self) -> None:
        self.received: list[int] = []
        self.shutting_down = False
        self.gateway = SimpleNamespace(id=id(self))

    def send_runtest_some(self, tests: list[int]) -> None:
        self.received += tests

    def shutdown(self) -> None:
        self.shutting_down = True


class Options:
    """What xdist's scheduler reads of pytest's configuration."""

    def __init__(self, folder: Path, workers: int) -> None:
        self.rootpath = folder
        self.option = SimpleNamespace(loadscopereorder=False)
        self._values = {"dist": "loadfile", "tx": ["popen"] * workers}

    def getoption(self, name: str) -> Any:
        return self._values[name]

    getvalue = getoption


def test_few_workers_run_systems_at_once_and_the_others_run_other_files_beside_them(tmp_path: Path) -> None:
    """Every test runs once, and no worker idles while files are left."""
    marks = {f"test_system_{number}.py": "pytestmark = pytest.mark.slow\n" for number in range(9)}
    marks |= {f"test_file_{number}.py": "" for number in range(9)}
    for name, mark in marks.items():
        (tmp_path / name).write_text(mark)
    tests = [f"{name}::test_{number}" for name in marks for number in range(4)]
    workers = [Worker() for _ in range(SYSTEMS_AT_ONCE + 2)]
    scheduler = pytest_xdist_make_scheduler(Options(tmp_path, len(workers)), None)
    for worker in workers:
        scheduler.add_node(worker)
    for worker in workers:
        scheduler.add_node_collection(worker, tests)
    scheduler.schedule()

    done = dict.fromkeys(workers, 0)
    most = 0
    while scheduler.has_pending:
        running = {w: tests[w.received[done[w]]] for w in workers if len(w.received) > done[w]}
        assert len(running) == len(workers) or not scheduler.workqueue
        most = max(most, sum("system" in name for name in running.values()))
        for worker in running:
            done[worker] += 1
            scheduler.mark_test_complete(worker, worker.received[done[worker] - 1])
    assert sorted(tests[number] for worker in workers for number in worker.received) == sorted(tests)
    assert most == SYSTEMS_AT_ONCE
