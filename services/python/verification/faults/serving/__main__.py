"""``python -m verification.faults.serving``: restart, kill and freeze the parts of a serving pool under load.

A run of all scenarios saves ``docs/figures/faults-serving.json``. ``--check HISTORY`` checks a recorded history again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from verification.faults.history import read
from verification.faults.package_run import ScenarioPackage
from verification.faults.serving.checker import check

SERVING = ScenarioPackage(
    package="verification.faults.serving",
    report="faults-serving",
    title="Faults of serving pools",
    description="Restarts, kills and freezes the parts of a serving pool while clients send requests.",
    about=(
        "Two gateways, groups that answer requests, and a real server (Valkey) run on one machine, without Ray. Each "
        "request has a deadline of 30 s. Clients record when each byte came, and groups record what they ran. A "
        "checker decides from both."
    ),
    jobs=2,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the scenarios, or check a history. :returns: 1 when a promise was broken."""
    parser = SERVING.parser()
    parser.add_argument("--check", type=Path, metavar="HISTORY", help="check a recorded history again")
    args = parser.parse_args(arguments)
    if args.check is None:
        return SERVING.run(args)
    verdict = check(read(args.check))
    print(verdict.text(limit=100))
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    sys.exit(main())
