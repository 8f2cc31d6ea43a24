"""``python -m verification.faults.system [--long] [CASE …]``: injects faults into a whole ``daybreakd up`` with Ray."""

from __future__ import annotations

import argparse
import sys

from verification.faults.scenario_catalogue import ViolatedError
from verification.faults.system.cases import CASES
from verification.faults.system.run import chosen, run


def main(arguments: list[str] | None = None) -> int:
    """Run the cases. :returns: 1 when a promise was broken; a time that misses its target is only shown."""
    lines = [f"  {name:15} {(entry.run.__doc__ or '').strip()}" for name, entry in CASES.items()]
    parser = argparse.ArgumentParser(
        prog="python -m verification.faults.system",
        description="Kills, stops and hangs the processes of a whole `daybreakd up`, one after another.",
        epilog="cases:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help="run only these cases, and save no figures")
    parser.add_argument(
        "--long", action="store_true", help="run every case (about 15 minutes), not only the quick ones"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the clients' random choices (default 0)")
    args = parser.parse_args(arguments)
    try:
        report = run(chosen(args.cases, long=args.long), seed=args.seed, log=_print)
    except ViolatedError as exc:
        _print(f"VIOLATED: {exc}")
        return 1
    _print("\n" + report.table())
    if not args.cases:
        report.name = "faults-system-long" if args.long else "faults-system"
        _print(f"figures in {report.save()}")
    return 1 if any(row.broken for row in report.rows) else 0


def _print(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
