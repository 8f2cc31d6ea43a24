"""``python -m verification.benchmarks.shard_simulation [--quick] [--seed N]``: simulates 100 k tasks/s on 10 k groups.

It simulates the same load with several numbers of shards. One million clients follow the tasks. The service times
come from `verification.benchmarks.queue` (docs/figures/queue.json). The program prints the table, and writes
`shards.json` and `shards.svg`.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from verification.benchmarks.shard_simulation import table
from verification.benchmarks.shard_simulation.assumptions import Assumptions, event_out
from verification.benchmarks.shard_simulation.costs import Costs, NotMeasuredError, measured
from verification.benchmarks.shard_simulation.picture import Line, draw
from verification.benchmarks.shard_simulation.shard import Shard, ShardLoad, ShardResult
from verification.results import FOLDER

SHARDS = (8, 12, 16, 20, 24, 32, 48, 64, 128)
SHOWN = (16, 32, 64, 128)
"""The numbers of shards for two further cases: every gateway follows every pool; one pool has twice the mean load."""
PROMISE_S = 0.010


def main(arguments: list[str] | None = None) -> int:
    """Simulate. :returns: 2 if the costs have not been measured."""
    parser = argparse.ArgumentParser(
        prog="python -m verification.benchmarks.shard_simulation", description=__doc__
    )
    parser.add_argument("--quick", action="store_true", help="shorter and fewer runs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--costs", type=Path, default=FOLDER, help="folder of queue.json")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the results")
    args = parser.parse_args(arguments)
    try:
        costs, source = measured(args.costs)
    except NotMeasuredError as exc:
        print(exc, file=sys.stderr)
        return 2
    shards = SHARDS[2:7:2] if args.quick else SHARDS
    for_s = 1.5 if args.quick else 4.0
    routed, everywhere = Assumptions(), Assumptions(follow_all=True)
    few = [number for number in shards if number in SHOWN] or shards[-1:]
    runs = {
        "each gateway follows only the pools of its clients": [
            (number, simulate(replace(routed, shards=number), costs, seed=args.seed, for_s=for_s))
            for number in shards
        ],
        "every gateway follows every pool": [
            (number, simulate(replace(everywhere, shards=number), costs, seed=args.seed, for_s=for_s))
            for number in few
        ],
        "the busiest pool has twice the mean load": [
            (
                number,
                simulate(replace(routed, shards=number, hottest=2.0), costs, seed=args.seed, for_s=for_s),
            )
            for number in few
        ],
    }
    lines = [
        Line(name=name, points=[(number, result.lag(0.99) * 1e3) for number, result in results])
        for name, results in runs.items()
    ]
    args.out.mkdir(parents=True, exist_ok=True)
    draw(
        lines,
        title="Submit to start, p99, at 100 k tasks/s on 10 k groups",
        limit_ms=PROMISE_S * 1e3,
        path=args.out / "shards.svg",
    )
    report = table.report(runs, costs=costs, source=source, seed=args.seed, promise_s=PROMISE_S)
    report.save(args.out)
    print(report.table())
    return 0


def simulate(assumed: Assumptions, costs: Costs, *, seed: int, for_s: float) -> ShardResult:
    """Simulate the busiest shard of a system of the assumed size."""
    shard = ShardLoad(
        tasks_s=assumed.tasks_a_shard,
        groups=max(1, round(assumed.groups_a_shard)),
        run_s=assumed.run_s,
        readers=assumed.readers,
        tickers=assumed.tickers,
        net_s=costs.handoff_raw / 2,
        event_out_s=event_out(assumed, costs),
        reports=assumed.reports,
        refresh_every_s=assumed.lease_s / 3,
        for_s=for_s,
        warm_up_s=for_s / 4,
    )
    return Shard(shard, costs, seed=seed).run()


if __name__ == "__main__":
    sys.exit(main())
