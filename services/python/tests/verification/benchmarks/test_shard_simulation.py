"""The simulator is repeatable, agrees with results calculated by hand, and says which costs are missing."""

from __future__ import annotations

from pathlib import Path

import pytest

from verification.benchmarks.queue import table
from verification.benchmarks.queue.handoff import HandOff
from verification.benchmarks.queue.rate import Rate
from verification.benchmarks.shard_simulation import __main__ as program
from verification.benchmarks.shard_simulation.assumptions import Assumptions, load, slot
from verification.benchmarks.shard_simulation.check import closed
from verification.benchmarks.shard_simulation.costs import Costs, measured
from verification.results import load as load_report


@pytest.fixture
def figures(tmp_path: Path) -> Path:
    """A `queue.json` with round numbers: 50 µs a submit, 100 µs a settle."""
    report = table.report(server="none")
    rows = table.handoff_rows(HandOff(raw_ms=(0.3,) * 20, queue_ms=(1.0,) * 20))
    rows += table.cost_rows(
        {
            "a claim that finds nothing": 40.0,
            "a refresh of a group": 50.0,
            "a renewal of a lease": 40.0,
            "a report of one event": 60.0,
            "a tick": 60.0,
            "an event sent to one reader": 15.0,
            "an event sent to one reader, many at once": 1.5,
        }
    )
    rate = Rate(
        depth=1000,
        bytes_a_task=1200.0,
        ended_bytes=2000.0,
        submits_s=10_000.0,
        submit_us=50.0,
        settles_s=5_000.0,
        settle_us=100.0,
        tasks_s=(3_000.0,),
        single_s=2_000.0,
        raw_s=9_000.0,
    )
    for row in [*rows, *table.rate_rows([rate])]:
        report.add(row)
    report.save(tmp_path)
    return tmp_path


@pytest.fixture
def costs(figures: Path) -> Costs:
    """The costs that the simulator reads from `figures`."""
    return measured(figures)[0]


def test_a_run_leaves_rows_and_a_picture(figures: Path, tmp_path: Path) -> None:
    """The command works on saved figures, and the same seed gives the same rows."""
    first, second = tmp_path / "first", tmp_path / "second"
    for out in (first, second):
        assert program.main(["--quick", "--costs", str(figures), "--out", str(out), "--seed", "7"]) == 0
    assert (first / "shards.svg").read_text().startswith("<svg")
    assert load_report(first / "shards.json").rows == load_report(second / "shards.json").rows


def test_without_measured_costs_it_says_what_to_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command does not guess costs."""
    assert program.main(["--costs", str(tmp_path), "--out", str(tmp_path)]) == 2
    assert "verification.benchmarks.queue" in capsys.readouterr().err


def test_a_shard_is_as_busy_as_its_operations_cost(costs: Costs) -> None:
    """A submit and a settle take 50 + 100 µs, so 3,125 of each per second take 47 % of a core."""
    shares = load(Assumptions(shards=32), costs)
    assert shares["submit"] + shares["settle and claim"] == pytest.approx(0.46875)


def test_the_last_gateway_may_have_room_left() -> None:
    """A gateway carries 5,000 subscribers, so 5,001 need two gateways."""
    assert [Assumptions(tasks_s=1, subscribers=number).gateways for number in (0, 5_000, 5_001)] == [1, 1, 2]


def test_lag_grows_where_the_core_is_full_and_only_there(costs: Costs) -> None:
    """With 64 shards, each core has room, and tasks start at once. With 8 shards, cores are full and queues grow."""
    calm = program.simulate(Assumptions(shards=64), costs, seed=1, for_s=1.0)
    full = program.simulate(Assumptions(shards=8), costs, seed=1, for_s=1.0)
    assert calm.used < 0.9
    assert calm.lag(0.99) < 0.01
    assert full.unstarted > 1_000
    assert full.lag(0.99) > 0.1


def test_a_closed_loop_is_as_fast_as_its_slowest_station(costs: Costs) -> None:
    """If clients and leaders take no time, only the server's 150 µs per task limit the rate."""
    assert closed(client=0.0, leader=0.0, costs=costs, produce=True) == pytest.approx(1 / 150e-6, rel=0.05)


def test_slots_are_those_of_redis_cluster() -> None:
    """The first figure is the check value of CRC16/XMODEM. The second is from the Redis Cluster specification."""
    assert slot("123456789") == 0x31C3
    assert slot("foo") == 12182
