"""``python -m verification.benchmarks.queue [--quick] [--part PART …] [--depths N …]`` measures the queue.

The parts are ``handoff`` (the time from a submit to the claim by a waiting leader), ``costs`` (what single calls cost
the server), ``rate`` (tasks per second at each depth, with the fsync policy ``everysec``) and ``always`` (hand-off and
rate again, with an fsync before each answer). Without ``--part``, all parts run. With ``--part``, the rows of the other
parts in ``docs/figures/queue.json`` stay as they are.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from verification.benchmarks.queue import costs, handoff, rate, table
from verification.benchmarks.queue.server import BenchServer, spare_cores
from verification.results import FOLDER, Row, load

DEPTHS = (1_000, 10_000, 100_000, 1_000_000)
QUICK_DEPTHS = (1_000, 10_000)
PARTS = ("handoff", "costs", "rate", "always")


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table, write the JSON. Missed targets do not change the exit code."""
    parser = argparse.ArgumentParser(prog="python -m verification.benchmarks.queue", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer samples, small depths")
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; may be repeated")
    parser.add_argument(
        "--depths", type=int, nargs="+", help="numbers of queued tasks at which to measure the rate"
    )
    parser.add_argument("--data", type=Path, help="keep the queued tasks in this folder, and reuse them")
    parser.add_argument("--fill", action="store_true", help="only fill --data to the largest depth")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the JSON")
    args = parser.parse_args(arguments)
    if args.fill and args.data is None:
        parser.error("--fill needs --data, the folder to fill")
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # exit normally, so that the started processes end too
    folder = args.data or Path(tempfile.mkdtemp(prefix="daybreak-bench-"))
    if args.fill:
        return fill(folder, max(args.depths or DEPTHS))
    try:
        rows, server = measure(folder, quick=args.quick, parts=args.part or PARTS, depths=args.depths)
    finally:
        if args.data is None:
            shutil.rmtree(folder, ignore_errors=True)
    report = table.report(server=server)
    path = args.out / "queue.json"
    earlier = load(path).rows if args.part and path.exists() else []
    for row in table.merged(earlier, rows):
        report.add(row)
    report.save(args.out)
    print(report.table())
    return 0


def fill(folder: Path, depth: int) -> int:
    """Queue ``depth`` tasks and keep them, so that a later run need not queue them."""
    server_cores, client_cores = spare_cores()
    with BenchServer(folder / "rate", cores=server_cores) as server:
        rate.fill(server.url, depth, cores=client_cores)
        server.calm()
    return 0


def measure(
    folder: Path, *, quick: bool, parts: list[str] | tuple[str, ...], depths: list[int] | None
) -> tuple[list[Row], str]:
    """The rows of the chosen parts, and the name of the server."""
    server_cores, client_cores = spare_cores()
    depths = sorted(depths or (QUICK_DEPTHS if quick else DEPTHS))
    samples, tasks, repeats = (300, 3_000, 2) if quick else (2_500, 12_000, 3)
    rows: list[Row] = []
    with BenchServer(folder / "everysec", cores=server_cores) as server:
        name = server.version()
        if "handoff" in parts:
            rows += table.handoff_rows(handoff.measure(server.url, samples=samples, cores=client_cores))
        if "costs" in parts:
            rows += table.cost_rows(costs.measure(server, calls=samples, cores=client_cores))
        _print(rows)
    if "rate" in parts:
        with BenchServer(folder / "rate", cores=server_cores) as server:
            rates = []
            for depth in depths:
                rates.append(
                    rate.measure(server, depth=depth, tasks=tasks, repeats=repeats, cores=client_cores)
                )
                print(rates[-1], file=sys.stderr, flush=True)
        rows += table.rate_rows(rates)
    if "always" in parts:
        with BenchServer(folder / "always", fsync="always", cores=server_cores) as server:
            hands = handoff.measure(server.url, samples=samples // 4, cores=client_cores)
            always = rate.measure(
                server, depth=depths[0], tasks=tasks // 4, repeats=repeats, cores=client_cores
            )
        rows += table.always_rows(always, hands)
    return rows, name


def _print(rows: list[Row]) -> None:
    for row in rows:
        print(row, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
