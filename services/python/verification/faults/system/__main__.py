"""``python -m verification.faults.system [--long] [CASE …]``: whole-system faults under Ray; figures into docs/figures."""

from __future__ import annotations

import argparse
import sys

from verification.faults.registry import ViolatedError
from verification.faults.system.cases import CASES
from verification.faults.system.run import chosen, run


def main(arguments: list[str] | None = None) -> int:
    """The exit status: 1 when a promise was broken; a time that misses its target is only shown."""
    lines = [f"  {name:15} {(one.run.__doc__ or '').strip()}" for name, one in CASES.items()]
    parser = argparse.ArgumentParser(
        prog="python -m verification.faults.system",
        description="Kill, stop and hang the parts of a whole `daybreakd up`, one after another.",
        epilog="cases:\n" + "\n".join(lines),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cases", nargs="*", metavar="CASE", help="only these (they are not saved as figures)")
    parser.add_argument(
        "--long", action="store_true", help="every case (some 15 minutes), not only the quick ones"
    )
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    try:
        report = run(chosen(given.cases, long=given.long), seed=given.seed, say=_say)
    except ViolatedError as exc:
        _say(f"VIOLATED: {exc}")
        return 1
    _say("\n" + report.table())
    if not given.cases:
        report.name = "faults-system-long" if given.long else "faults-system"
        _say(f"figures in {report.save()}")
    return 1 if any(row.broken for row in report.rows) else 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
