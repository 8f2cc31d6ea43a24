"""The benchmarks run from end to end with tiny numbers; the tests check that figures exist, not their size."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from verification.benchmarks.competitors import contenders, counter, race
from verification.benchmarks.competitors import table as race_table
from verification.benchmarks.queue import costs, handoff, rate, table
from verification.benchmarks.queue.server import BenchServer
from verification.results import Report

CORES = set(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else {0}


@pytest.mark.system
def test_the_queue_benchmark_measures_every_row_of_its_table(tmp_path: Path) -> None:
    """Hand-off, costs and rates are measured on a real server, and the rows can be merged and saved."""
    with BenchServer(tmp_path / "server") as server:
        rows = table.handoff_rows(handoff.measure(server.url, samples=5, cores=CORES))
        rows += table.cost_rows(costs.measure(server, calls=100, cores=CORES))
        rates = [rate.measure(server, depth=depth, tasks=400, repeats=1, cores=CORES) for depth in (100, 300)]
    rows += table.rate_rows(rates)
    assert all(measured.tasks_s[0] > 0 and measured.bytes_a_task > 0 for measured in rates)
    report = table.report(server="test")
    for row in table.merged(rows[:-1], rows[-2:]):
        report.add(row)
    names = [row.what for row in report.rows]
    assert "Change with depth: rate, 100 to 300 queued" in names
    assert set(names) >= {row.what for row in rows}
    assert report.save(tmp_path).exists()


@pytest.mark.parametrize("contender", contenders.CONTENDERS, ids=lambda contender: contender.name)
def test_every_queue_runs_its_tasks(contender: contenders.Contender, tmp_path: Path) -> None:
    """Each queue runs with real workers and a real producer, in the first of its variants."""
    if not contender.installed:
        pytest.skip(f"{contender.name} is not installed: run python -m verification.benchmarks.competitors")
    small_race = race.Race(tasks=50, repeats=1, light=10, rate=50)
    with BenchServer(tmp_path / "server") as server:
        result = race.run(
            contender, contender.variants[0], server=server, race=small_race, folder=tmp_path / contender.name
        )
    assert not result.error, (result.error, (tmp_path / contender.name / "workers.log").read_text()[-2000:])
    assert len(result.delays_ms) == 10
    report = race_table.report({contender.name: [result]}, [contender], server="test")
    assert isinstance(report, Report)
    assert report.rows[0].value > 0


def test_a_counter_counts_across_processes(tmp_path: Path) -> None:
    """Each process has its own file; the counts are added up, and can be cleared."""
    code = (
        "import sys; from pathlib import Path; from verification.benchmarks.competitors.counter import Counter; "
        "t = Counter(Path(sys.argv[1])); [t.count(1) for _ in range(7)]"
    )
    root = Path(contenders.PYTHONPATH)
    for _ in range(2):
        subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, check=True, timeout=60)
    counts = counter.read(tmp_path)
    assert (counts.count, len(counts.delays_ns), counts.by_process) == (14, 14, (7, 7))
    counter.clear(tmp_path)
    assert counter.count(tmp_path) == 0
