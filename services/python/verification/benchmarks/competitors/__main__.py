"""Compares Daybreak with other queues: ``python -m verification.benchmarks.competitors [--quick] [--only NAME …]``.

The first run creates the competitors' environments in `build/competitors`. For this, it downloads packages from the
package index.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from verification.benchmarks.competitors import environments, race, table
from verification.benchmarks.competitors.contenders import CONTENDERS, Contender
from verification.benchmarks.queue.server import BenchServer
from verification.results import FOLDER

FULL = race.Race(tasks=10_000, repeats=3, light=400, rate=100.0, seconds=1.5)
QUICK = race.Race(tasks=3_000, repeats=1, light=200, rate=100.0, seconds=2.0)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the table, write the JSON."""
    parser = argparse.ArgumentParser(
        prog="python -m verification.benchmarks.competitors", description=__doc__
    )
    parser.add_argument("--quick", action="store_true", help="few tasks, and one variant of each queue")
    names = [contender.name for contender in CONTENDERS]
    parser.add_argument("--only", nargs="+", choices=names, help="only these queues")
    parser.add_argument("--variant", help="only variants whose description contains this text")
    parser.add_argument("--out", type=Path, default=FOLDER, help="folder of the JSON")
    args = parser.parse_args(arguments)
    signal.signal(
        signal.SIGTERM, lambda *_: sys.exit(143)
    )  # exit normally, so that the started processes end too
    wanted = [contender for contender in CONTENDERS if not args.only or contender.name in args.only]
    for contender in wanted:
        try:
            environments.make(contender)
        except (OSError, subprocess.CalledProcessError) as exc:
            print(f"{contender.name} cannot be installed and is skipped: {exc}", file=sys.stderr)
    wanted = [contender for contender in wanted if contender.installed]
    results, server = measure(wanted, QUICK if args.quick else FULL, quick=args.quick, variant=args.variant)
    report = table.report(results, wanted, server=server)
    report.save(args.out)
    print(report.table())
    return 0


def measure(
    contenders: Sequence[Contender], size: race.Race, *, quick: bool, variant: str | None = None
) -> tuple[dict[str, list[race.Result]], str]:
    """The results of each contender's variants, and the name and version of the server."""
    folder = Path(tempfile.mkdtemp(prefix="daybreak-competitors-"))
    results: dict[str, list[race.Result]] = {}
    try:
        with BenchServer(folder / "server") as server:
            for contender in contenders:
                chosen = [
                    candidate
                    for candidate in contender.variants
                    if variant is None or variant in candidate.what
                ]
                for index, candidate in enumerate(chosen[:1] if quick else chosen):
                    where = folder / f"{contender.name}-{index}"
                    result = race.run(contender, candidate, server=server, race=size, folder=where)
                    results.setdefault(contender.name, []).append(result)
                    print(table.line(contender, result), file=sys.stderr, flush=True)
            return results, server.version()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
