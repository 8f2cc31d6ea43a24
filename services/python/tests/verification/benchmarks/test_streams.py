"""The benchmark of streams runs; no timing is checked."""

from __future__ import annotations

from pathlib import Path

import pytest

from verification.benchmarks.streams.__main__ import main
from verification.results import load


@pytest.mark.parametrize("part", ["many-tasks", "one-task"])
def test_a_few_clients_lose_no_event(part: str, tmp_path: Path) -> None:
    """Fifty clients see every event once; each row has its target."""
    assert main(["--quick", "--part", part, "--out", str(tmp_path)]) == 0
    memory, lag, a_core, wrong = load(tmp_path / "streams.json").rows
    assert wrong.value == 0
    assert wrong.held
    assert all(row.target for row in (memory, lag, a_core))
    assert a_core.value > 0


def test_the_relay_is_measured_beside_its_baseline(tmp_path: Path) -> None:
    """Both batch sizes, decoding, and two consumers have a figure."""
    assert main(["--quick", "--part", "relay", "--out", str(tmp_path)]) == 0
    rows = load(tmp_path / "streams.json").rows
    assert [row.baseline is not None for row in rows] == [True, True, True, False]
    assert all(row.value > 0 for row in rows)
