"""``python -m verification.mutants``: plants bugs, one at a time.

Exits with 1 if a bug survives or cannot be planted.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from threading import Event

from verification.mutants.catalogue import CATALOGUE
from verification.mutants.mutant import Mutant
from verification.mutants.mutant_run import MutantRun, attempt, failures_without_bug
from verification.mutants.tree import Tree
from verification.results import FOLDER, Report, Row, load

NAME = "mutants"


def main(arguments: Sequence[str] | None = None) -> int:
    """Plant the selected bugs, and print which of them the tests caught. A run of all bugs saves the report.

    :returns: the exit code: 0, 1 if a bug survived or could not be planted, or 2 if no bug is selected or a test fails
        without a bug.
    """
    options = _parsed(arguments)
    named = [
        mutant
        for mutant in CATALOGUE
        if not options.only or any(part in mutant.name for part in options.only)
    ]
    chosen = share_of(named, *options.share)
    if options.list or not chosen:
        listed = "\n".join(f"{mutant.name:<34} {mutant.about}" for mutant in chosen)
        print(listed or "no planted bug has any of these texts in its name; --list without --only shows all")
        return 0 if chosen else 2
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="daybreak-mutants-") as folder:
        trees = [Tree(Path(folder) / str(number)) for number in range(options.jobs)]
        waiting_first = sorted(chosen, key=lambda mutant: not mutant.waits)
        runs = _run_all(trees, waiting_first, unchecked=options.unchecked, verbose=options.verbose)
    if runs is None:
        return 2
    runs.sort(key=lambda run: chosen.index(run.mutant))
    seconds = time.perf_counter() - began
    survivors = [run for run in runs if run.caught_by is None]
    print(f"{len(runs) - len(survivors)} of {len(runs)} planted bugs caught in {seconds:.0f} s")
    if survivors:  # repeated here, because the end of a long log is what people see
        print("Not caught:", *(run.line for run in survivors), sep="\n  ")
    if options.share != (0, 1):
        print(f"This was share {options.share[0]} of {options.share[1]}; the saved report is unchanged.")
    elif not options.only:
        _report(runs, seconds).save()
    elif options.save:
        _updated(load(FOLDER / f"{NAME}.json"), runs).save()
    return 1 if survivors else 0


def share_of(mutants: Sequence[Mutant], number: int, count: int) -> list[Mutant]:
    """One of ``count`` disjoint shares that together are all mutants. ``number`` is taken modulo ``count``."""
    return [mutant for index, mutant in enumerate(mutants) if index % count == number % count]


def _share(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    if not (slash and number.isdigit() and count.isdigit() and int(count)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a share; write NUMBER/COUNT, such as 1/3")
    return int(number) % int(count), int(count)


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m verification.mutants", description=__doc__)
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="plant only bugs with NAME in their name (repeatable)"
    )
    parser.add_argument(
        "--jobs", type=int, default=4, help="copies of the source, each with one bug at a time (default 4)"
    )
    parser.add_argument(
        "--share",
        type=_share,
        default=(0, 1),
        metavar="NUMBER/COUNT",
        help="plant one of COUNT shares; NUMBER is taken modulo COUNT. In CI, COUNT is 3, and NUMBER is the number of "
        "commits",
    )
    parser.add_argument(
        "--save", action="store_true", help="with --only: update the rows of these bugs in the saved report"
    )
    parser.add_argument("--list", action="store_true", help="list the bugs and exit")
    parser.add_argument("--verbose", action="store_true", help="show the output of the tests")
    parser.add_argument(
        "--unchecked", action="store_true", help="do not check that the tests pass without a bug"
    )
    return parser.parse_args(arguments)


def _run_all(
    trees: Sequence[Tree], chosen: Sequence[Mutant], *, unchecked: bool, verbose: bool
) -> list[MutantRun] | None:
    """Plant all bugs. At the same time, run their tests without a bug, in the first copy of the source.

    :returns: ``None`` if a test fails without a bug. Then the failure is printed, and no further bug is planted.
    """
    free: SimpleQueue[Tree] = SimpleQueue()
    for tree in trees[1:]:
        free.put(tree)
    failing = Event()

    def run_without_bug() -> None:
        try:
            if not unchecked and not _pass_without_bug(trees[0], chosen):
                failing.set()
        finally:
            free.put(trees[0])

    def run_one(mutant: Mutant) -> MutantRun | None:
        tree = free.get()
        try:
            run = None if failing.is_set() else attempt(tree, mutant)
        finally:
            free.put(tree)
        if run is not None:
            print(run.line, flush=True)
            if verbose or run.caught_by is None:
                print(run.output, flush=True)
        return run

    with ThreadPoolExecutor(len(trees) + 1) as pool:
        check = pool.submit(run_without_bug)
        runs = list(pool.map(run_one, chosen))
        check.result()
    return None if failing.is_set() else [run for run in runs if run is not None]


def _pass_without_bug(tree: Tree, mutants: Sequence[Mutant]) -> bool:
    """Whether the tests of these bugs pass without a bug. A test that fails without a bug cannot catch one."""
    began = time.perf_counter()
    failures = failures_without_bug(tree, [test for mutant in mutants for test in mutant.tests], workers=2)
    if failures is None:
        print(f"The tests pass without a bug ({time.perf_counter() - began:.1f} s).", flush=True)
    else:
        print(
            f"{failures}\nThese tests fail without a planted bug, so they cannot catch one. Fix them first."
        )
    return failures is None


def _report(runs: Sequence[MutantRun], seconds: float) -> Report:
    about = (
        "Bugs planted in a private copy of the source, one at a time. A test of the ordinary suite, which passes "
        "without the bug, must catch each. Below the total, the table lists only bugs that survived. The saved "
        "report names every bug and the test that caught it."
    )
    report = Report(NAME, title="Planted bugs", about=about, extra={"seconds": round(seconds)})
    report.rows = _with_total([_row(run) for run in runs])
    return report


def _updated(report: Report, runs: Sequence[MutantRun]) -> Report:
    """The saved report, with the rows of these runs in place of the older rows of the same mutants."""
    fresh = {f"{run.mutant.name}: ": _row(run) for run in runs}
    old = [row for row in report.rows[1:] if not row.what.startswith(tuple(fresh))]
    order = {f"{mutant.name}: ": index for index, mutant in enumerate(CATALOGUE)}
    rows = sorted([*old, *fresh.values()], key=lambda row: order.get(row.what.partition(": ")[0] + ": ", 0))
    report.rows = _with_total(rows)
    return report


def _row(run: MutantRun) -> Row:
    return Row(
        f"{run.mutant.name}: {run.mutant.about}",
        run.seconds,
        "s",
        target="caught",
        held=run.caught_by is not None,
        note=run.error or run.caught_by or "survived",
        detail=run.caught_by is not None,
    )


def _with_total(rows: list[Row]) -> list[Row]:
    caught = sum(row.held is True for row in rows)
    total = Row(
        "Planted bugs caught", float(caught), f"of {len(rows)}", target="all", held=caught == len(rows)
    )
    return [total, *rows]


if __name__ == "__main__":
    sys.exit(main())
