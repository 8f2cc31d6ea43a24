"""Compares submits over HTTP with a POST that does nothing: ``python -m verification.benchmarks.http [--quick]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from verification.benchmarks.http import plan
from verification.benchmarks.http.parts import Cores
from verification.results import FOLDER, Report

ABOUT = (
    "The client sends `POST /v1/tasks` to the gateway; every submit creates a new task. The baseline is a FastAPI "
    "route that validates the same body and does nothing else. *Bare ASGI* is an app that reads the body and "
    "responds, without a framework. All three run on the same server class, HTTP parser and event loop, and receive "
    "prepared requests from the same client over open connections. The rounds alternate between them; a figure is the "
    "median of {rounds} rounds of {seconds:g} s. Valkey runs with `everysec` on the client's core."
)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and save. Missed targets do not change the exit code; the table shows them."""
    parser = argparse.ArgumentParser(prog="python -m verification.benchmarks.http", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="short measurements; saved only with --out")
    parser.add_argument("--no-serve", action="store_true", help="skip Ray Serve (saves a minute)")
    parser.add_argument("--out", type=Path, default=None, help="folder for the JSON file of figures")
    args = parser.parse_args(arguments)
    effort = plan.QUICK if args.quick else plan.FULL
    cores = Cores.here()
    report = Report(
        "http",
        title="Submit over HTTP",
        about=ABOUT.format(rounds=effort.rounds, seconds=effort.seconds),
    )
    with plan.testbed(cores) as bench:
        report.rows += plan.compare(bench, effort)
        report.rows += plan.other_rows(bench, effort)
        report.extra = {"cores used": str(cores), "busy": bench.shares(), "fsync": "everysec"}
    if not args.quick and not args.no_serve:
        from verification.benchmarks.http import through_serve

        report.rows += through_serve.measure(effort)
    print(report.table())
    if args.out or not args.quick:
        print(f"\n{report.save(args.out or FOLDER)}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
