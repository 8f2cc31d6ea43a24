"""Compares Daybreak's router with other routers:
``python -m verification.benchmarks.routing [--quick] [--part PART …]``.

The part ``speed`` measures how many requests and tokens per second a router passes on, and the latency that it adds.
``memory`` sends 200,000 requests through each router, or fewer with ``--quick``. With ``--part`` or ``--only`` the
other rows of ``docs/figures/routing.json`` stay as they are. The other routers are installed below
``build/competitors`` from the package registry; one that cannot be installed is left out, and the output says so.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from pathlib import Path

from verification.benchmarks.competitors.environments import install, versions_of
from verification.benchmarks.http.parts import Cores, raise_priority
from verification.benchmarks.routing import measure, table
from verification.benchmarks.routing.bed import bed
from verification.benchmarks.routing.contenders import CONTENDERS, DAYBREAK, Contender
from verification.results import FOLDER, load

PARTS = ("speed", "memory")


def main(arguments: list[str] | None = None) -> int:
    """Measure, print and save. Missed targets do not change the exit code; the table shows them."""
    parser = argparse.ArgumentParser(prog="python -m verification.benchmarks.routing", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="measure for a moment only; saved only with --out"
    )
    parser.add_argument("--part", action="append", choices=PARTS, help="only this part; may be repeated")
    names = [contender.name for contender in CONTENDERS]
    parser.add_argument("--only", action="append", choices=names, help="only this router; may be repeated")
    parser.add_argument("--out", type=Path, default=None, help="folder of the JSON")
    args = parser.parse_args(arguments)
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # exit normally, so that the started processes end too
    raise_priority()
    chosen = _installed(
        [contender for contender in CONTENDERS if not args.only or contender.name in args.only]
    )
    effort = measure.QUICK if args.quick else measure.FULL
    figures, cores = measure.Figures(), Cores.here()
    with bed(cores) as testbed:
        if "speed" in (args.part or PARTS):
            measure.speed(testbed, chosen, effort, figures)
        if "memory" in (args.part or PARTS):
            measure.memory(testbed, chosen, effort, figures)
    out = args.out or FOLDER
    path = out / "routing.json"
    report = table.report(effort, _versions(chosen), str(cores))
    partial = args.part or args.only
    earlier = load(path) if partial and path.exists() else None
    report.rows = table.merged(earlier.rows if earlier else [], table.rows(figures, effort))
    report.extra = {**(earlier.extra if earlier else {}), **report.extra}
    print(report.table())
    if args.out or not args.quick:
        print(f"\n{report.save(out)}", file=sys.stderr)
    return 0


def _installed(contenders: list[Contender]) -> list[Contender]:
    found = []
    for contender in contenders:
        try:
            if contender is not DAYBREAK:
                install(contender.name, contender.programs.parent, contender.requirements)
        except (subprocess.CalledProcessError, OSError) as exc:
            print(f"{contender.name} cannot be installed and is left out: {exc}", file=sys.stderr)
        else:
            found.append(contender)
    return found


def _versions(contenders: list[Contender]) -> dict[str, str]:
    return {
        contender.name: versions_of(contender.programs, [contender.package])[contender.package]
        for contender in contenders
        if contender is not DAYBREAK
    }


if __name__ == "__main__":
    sys.exit(main())
