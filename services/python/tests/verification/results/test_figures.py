"""Tests that figures get from a run to a page of the docs without loss."""

from __future__ import annotations

from pathlib import Path

import pytest

from verification.results import Report, Row, load
from verification.results.table import number


def report(**more: object) -> Report:
    sample = Report("queue", "The queue", "What ran.", seed=7, extra={"server": "valkey 9"})
    sample.add(
        Row(
            "No-op tasks",
            12345.6,
            "tasks/s",
            baseline=20000,
            baseline_what="bare",
            target="≥ 10,000",
            held=True,
        )
    )
    sample.add(
        Row("Late | odd", 0.00123, "ms", target="≤ 0.001 ms", held=False, spread=(0.001, 0.5), note="why")
    )
    return sample


def test_a_report_is_read_as_it_was_saved(tmp_path: Path) -> None:
    """Rows, spread, seed and machine are the same after a load. No temporary file is left beside the report."""
    saved = report()
    path = saved.save(tmp_path)
    assert load(path) == saved
    assert [file.name for file in tmp_path.iterdir()] == ["queue.json"]
    assert saved.machine["commit"]


def test_the_table_shows_misses_and_ratios() -> None:
    """The word "missed" is bold. The ratio is the figure divided by the baseline. A ``|`` in a name is escaped."""
    lines = report().table().splitlines()
    assert "| No-op tasks | 12,346 tasks/s |  | 20,000 tasks/s (bare) | 0.62 | ≥ 10,000 | yes |  |" in lines
    assert any("**missed**" in line and "Late \\| odd" in line and "0.001 to 0.5" in line for line in lines)
    assert "seed 7" in lines[-1]
    assert "server valkey 9" in lines[-1]


@pytest.mark.parametrize(
    ("value", "shown"), [(0, "0"), (3, "3"), (1234567.8, "1,234,568"), (0.5, "0.5"), (0.0000012, "0.0000012")]
)
def test_numbers_keep_three_digits(value: float, shown: str) -> None:
    """Small and large numbers are readable, without exponents."""
    assert number(value) == shown


def test_a_late_figure_breaks_no_promise() -> None:
    """A missed target breaks a promise only if the figure is a count.

    A time that misses its target is only shown, because no test may depend on timing.
    """
    assert Row("lost", 1, "tasks", held=False).broken
    assert not Row("lost", 0, "tasks", held=True).broken
    assert not Row("ready again", 99, "s", held=False).broken
    assert not Row("reclaimed", 1.6, "× lease", held=False).broken


def test_a_detail_is_saved_and_not_shown(tmp_path: Path) -> None:
    """The page says how many rows are only in the file. A baseline is described only in the first row that has it."""
    sample = report()
    sample.add(Row("Part", 1, "ms", detail=True))
    sample.add(Row("More tasks", 10, "tasks/s", baseline=20, baseline_what="bare"))
    assert load(sample.save(tmp_path)).rows == sample.rows
    table = sample.table()
    assert "Part" not in table
    assert "1 more row is in `docs/figures/queue.json`" in table
    assert table.count("(bare)") == 1
