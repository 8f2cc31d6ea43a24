"""The HTTP benchmark runs; no timing is checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from verification.benchmarks.http import load, plan
from verification.benchmarks.http.__main__ import main
from verification.benchmarks.http.parts import Cores
from verification.results import load as load_report


@pytest.mark.system
def test_a_quick_run_writes_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every row has a figure; the first two rows also have a target."""
    assert main(["--quick", "--out", str(tmp_path)]) == 0
    report = load_report(tmp_path / "http.json")
    assert len(report.rows) == 6
    assert all(row.value > 0 for row in report.rows)
    assert [row.held is None for row in report.rows[:3]] == [False, False, True]
    assert "no-op FastAPI route" in capsys.readouterr().out


def test_an_unexpected_response_ends_the_load() -> None:
    """The benchmark must not count an unexpected response as a fast success."""
    with plan.testbed(Cores.here()) as bench, pytest.raises(RuntimeError, match="unexpected response"):
        load.run(
            bench.servers["daybreak"].port,
            lambda number: load.post("/v1/tasks", b"{}"),
            concurrency=2,
            seconds=5.0,
        )


def test_each_keyed_request_has_another_key() -> None:
    """The keys differ, but have the same length."""
    assert plan.keyed(1) != plan.keyed(2)
    assert len(plan.keyed(1)) == len(plan.keyed(2**60))
