"""``python -m verification.mutants``: plant bugs, one at a time; exit 1 if one survives or cannot be planted."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue

from verification.mutants.catalogue import CATALOGUE
from verification.mutants.mutant import Mutant
from verification.mutants.tree import Tree
from verification.mutants.trial import Trial, attempt, sound
from verification.results import FOLDER, Report, Row, load

NAME = "mutants"


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parsed(arguments)
    named = [one for one in CATALOGUE if not options.only or any(part in one.name for part in options.only)]
    chosen = share_of(named, *options.share)
    if options.list or not chosen:
        print("\n".join(f"{one.name:<34} {one.about}" for one in chosen) or "no mutant of that name")
        return 0 if chosen else 2
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="daybreak-mutants-") as folder:
        trees = [Tree(Path(folder) / str(number)) for number in range(options.jobs)]
        if not options.unchecked:
            broken = sound(trees[0], [test for one in chosen for test in one.tests], workers=options.jobs)
            if broken is not None:
                print(f"{broken}\nThese tests fail without a bug planted: nothing can be caught by them.")
                return 2
            print(f"The tests pass without a bug ({time.perf_counter() - began:.1f} s).", flush=True)
        trials = _all(trees, chosen, verbose=options.verbose)
    seconds = time.perf_counter() - began
    survivors = [one for one in trials if one.caught_by is None]
    print(f"{len(trials) - len(survivors)} of {len(trials)} planted bugs caught in {seconds:.0f} s")
    if options.share != (0, 1):
        print(f"These were share {options.share[0]} of {options.share[1]}; the report of all stays as it is.")
    elif not options.only:
        _report(trials, seconds).save()
    elif options.save:
        _renewed(load(FOLDER / f"{NAME}.json"), trials).save()
    return 1 if survivors else 0


def share_of(mutants: Sequence[Mutant], number: int, count: int) -> list[Mutant]:
    """One of ``count`` shares that have nothing in common and are all of them together; ``number`` may be any."""
    return [one for place, one in enumerate(mutants) if place % count == number % count]


def _share(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    if not (slash and number.isdigit() and count.isdigit() and int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is no share: NUMBER/COUNT, as 1/3")
    return int(number) % int(count), int(count)


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m verification.mutants", description=__doc__)
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="those with NAME in their name (repeatable)"
    )
    parser.add_argument("--jobs", type=int, default=3, help="copies to work on at once (default 3)")
    parser.add_argument(
        "--share",
        type=_share,
        default=(0, 1),
        metavar="NUMBER/COUNT",
        help="one of COUNT shares; CI runs a third, and NUMBER is the commit's (any number: it is taken modulo COUNT)",
    )
    parser.add_argument("--save", action="store_true", help="with --only: put the rows into the saved report")
    parser.add_argument("--list", action="store_true", help="only list them")
    parser.add_argument("--verbose", action="store_true", help="show what the tests said")
    parser.add_argument("--unchecked", action="store_true", help="do not first run all tests without a bug")
    return parser.parse_args(arguments)


def _all(trees: Sequence[Tree], chosen: Sequence[Mutant], *, verbose: bool) -> list[Trial]:
    free: SimpleQueue[Tree] = SimpleQueue()
    for tree in trees:
        free.put(tree)

    def one(mutant: Mutant) -> Trial:
        tree = free.get()
        try:
            trial = attempt(tree, mutant)
        finally:
            free.put(tree)
        print(trial.line, flush=True)
        if verbose or trial.caught_by is None:
            print(trial.output, flush=True)
        return trial

    with ThreadPoolExecutor(len(trees)) as pool:
        return list(pool.map(one, chosen))


def _report(trials: Sequence[Trial], seconds: float) -> Report:
    about = (
        "Bugs planted in a private copy of the source, one at a time. Each must be caught by a test of the ordinary "
        "suite, which passes without it; the figure is how long that took, start of pytest included."
    )
    report = Report(NAME, title="Planted bugs", about=about, extra={"seconds": round(seconds)})
    report.rows = _with_total([_row(one) for one in trials])
    return report


def _renewed(report: Report, trials: Sequence[Trial]) -> Report:
    """A saved report with the rows of these trials in place of those of the same mutants."""
    fresh = {f"{one.mutant.name}: ": _row(one) for one in trials}
    old = [row for row in report.rows[1:] if not row.what.startswith(tuple(fresh))]
    order = {f"{one.name}: ": place for place, one in enumerate(CATALOGUE)}
    rows = sorted([*old, *fresh.values()], key=lambda row: order.get(row.what.partition(": ")[0] + ": ", 0))
    report.rows = _with_total(rows)
    return report


def _row(trial: Trial) -> Row:
    return Row(
        f"{trial.mutant.name}: {trial.mutant.about}",
        trial.seconds,
        "s",
        target="caught",
        held=trial.caught_by is not None,
        note=trial.error or trial.caught_by or "survived",
    )


def _with_total(rows: list[Row]) -> list[Row]:
    caught = sum(row.held is True for row in rows)
    total = Row(
        "Planted bugs caught", float(caught), f"of {len(rows)}", target="all", held=caught == len(rows)
    )
    return [total, *rows]


if __name__ == "__main__":
    sys.exit(main())
