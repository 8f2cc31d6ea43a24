"""``python -m verification.benchmarks.video [--quick] [--part PART …]``: measures the video pool.

The parts are ``bare`` (tasks on Daybreak, alternating with the same tasks under ``torchrun``), ``costs`` (what previews
and checkpoints cost) and ``start`` (the time until `daybreakd up` is ready, and until a killed gang is ready again).
Without ``--part`` all parts run. With ``--part``, the rows of the other parts in ``docs/figures/video.json`` stay as
they are.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from daybreak.sync import Client
from verification.benchmarks.video import rows, starting, subject
from verification.benchmarks.video.baseline import TorchrunLoop
from verification.faults.system.up import Up
from verification.results import FOLDER, Report, Row, load

RANKS = 2
OPTIONS = {"threads": 1}
LONG: dict[str, Any] = {
    "prompt": "a red circle moving left",
    "seed": 7,
    "steps": 160,
    "size": "96x96",
    "frames": 17,
}
"""A task that takes ten seconds or more on two cores."""
SHORT: dict[str, Any] = {**LONG, "steps": 60}
POOLS: dict[str, dict[str, Any]] = {
    "video": {},
    "plain": {"checkpoint_s": 3600, "options": {**OPTIONS, "preview_every": 0}},
    "previews": {"checkpoint_s": 3600, "options": {**OPTIONS, "preview_every": 2}},
    "checkpoints": {"checkpoint_s": 0.1, "options": {**OPTIONS, "preview_every": 0}},
}
"""``video`` has the defaults. ``plain`` has no previews, and no checkpoints within an hour. ``previews`` and
``checkpoints`` each differ from ``plain`` in one setting."""
PARTS = ("bare", "costs", "start")
ABOUT = (
    "The tiny model, a small Wan model that is part of the package, runs on the CPU, with one thread per rank, in "
    "gangs of two ranks under Ray Serve. At each *point of agreement*, the ranks agree whether to continue. The "
    "baseline is the *bare loop*: the same workload (`VideoWorkload.run`: denoise, decode, encode to MP4) on two "
    "ranks under plain `torchrun`. Where the bare loop is measured, each task on Daybreak forms a pair with "
    "the run of the bare loop just before it, and tasks have 160 steps. Where previews and checkpoints are measured, "
    "tasks have 60 steps."
)

Quiet = Callable[[], AbstractContextManager[Any]]


def measure(parts: list[str], *, quick: bool, quiet: Quiet = contextlib.nullcontext) -> list[Row]:
    """Measure these parts and return their rows. Timed work runs inside the context manager ``quiet()``."""
    all_rows: list[Row] = []
    pools = [name for name in POOLS if (name == "video") == ("bare" in parts) or "costs" in parts]
    if "bare" in parts or "costs" in parts:
        common = {
            "workload": "verification.benchmarks.video.timed:SPEC",
            "ranks": RANKS,
            "cpus_per_rank": 0.25,
            "options": OPTIONS,
        }
        with Up({name: {**common, **POOLS[name]} for name in pools}) as up, Client(up.url) as client:
            _print(f"ready after {up.starts_s[0]:.1f} s: {', '.join(pools)}")
            if "bare" in parts:
                all_rows += _beside_bare(client, pairs=2 if quick else 5, quiet=quiet)
            if "costs" in parts:
                all_rows += _costs(client, rounds=2 if quick else 5, quiet=quiet)
    if "start" in parts:
        with quiet():
            all_rows += starting.measure(1 if quick else 3, ranks=RANKS, say=_print)
    return all_rows


def _beside_bare(client: Client, *, pairs: int, quiet: Quiet) -> list[Row]:
    bare, ours = [], []
    with TorchrunLoop(ranks=RANKS, options=OPTIONS) as baseline, quiet():
        for number in range(-1, pairs):
            params = LONG if number >= 0 else SHORT  # the first pair is a warm-up
            bare_s, digest = baseline.run(params)
            timed = subject.run(client, "video", params)
            if digest != timed.sha256:
                raise RuntimeError(
                    f"pair {number + 1}: the bare loop and Daybreak made different videos ({digest} and {timed.sha256})"
                )
            our_times = f"{timed.wall_s:.3f} s, from the claim {timed.run_s:.3f} s"
            _print(f"pair {number + 1}: bare {bare_s:.3f} s, ours {our_times}")
            if number >= 0:
                bare.append(bare_s)
                ours.append(timed)
    return rows.beside_bare(bare, ours)


def _costs(client: Client, *, rounds: int, quiet: Quiet) -> list[Row]:
    names = ("plain", "previews", "checkpoints")
    timed: dict[str, list[subject.Timed]] = {name: [] for name in names}
    for name in names:
        subject.run(client, name, SHORT)
    with quiet():
        for number in range(rounds):
            for name in names:
                timed[name].append(subject.run(client, name, SHORT))
            _print(f"round {number}: " + ", ".join(f"{name} {timed[name][-1].run_s:.3f} s" for name in names))
    previews = rows.cost_of("with a preview every 2 steps", "preview", timed["plain"], timed["previews"])
    return previews + rows.cost_of(
        "with checkpoints as often as possible", "checkpoint", timed["plain"], timed["checkpoints"]
    )


def report(measured: list[Row], *, keep: bool) -> Report:
    """The report of the rows in ``measured``. With ``keep``, it also has the saved rows that were not measured now."""
    new_report = Report("video", title="Video", about=ABOUT, extra={"ranks": RANKS, "params": LONG})
    path = FOLDER / "video.json"
    new = {row.what for row in measured}
    for row in [
        row for row in (load(path).rows if keep and path.exists() else []) if row.what not in new
    ] + measured:
        new_report.add(row)
    return new_report


def main(arguments: list[str] | None = None) -> int:
    """Measure, save the JSON, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m verification.benchmarks.video",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--quick", action="store_true", help="measure with fewer repeats")
    parser.add_argument("--part", action="append", choices=PARTS, help="run only this part; can be repeated")
    args = parser.parse_args(arguments)
    new_report = report(measure(args.part or list(PARTS), quick=args.quick), keep=bool(args.part))
    new_report.save()
    print(new_report.table())
    return 0


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
