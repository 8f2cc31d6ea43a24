"""``python -m verification.faults.sessions``: kill, freeze and restart the parts of a pool while clients speak.

A run of all scenarios saves ``docs/figures/faults-sessions.json``. ``--check HISTORY`` checks a recorded history again.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from verification.faults.history import read
from verification.faults.package_run import ScenarioPackage
from verification.faults.sessions.checker import check

SESSIONS = ScenarioPackage(
    package="verification.faults.sessions",
    report="faults-sessions",
    title="Faults of streaming sessions",
    description="Kills, freezes and restarts the parts of a pool of sessions while clients speak.",
    about=(
        "Two gateways, groups of the workload `simulated-speech` and a real server run on one machine, without "
        "Ray. Clients stream audio in real time. The text of a session depends on every sample of its audio, so a "
        "checker knows from what a client saw whether audio was lost or text came twice."
    ),
    jobs=4,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the scenarios, or check a history. :returns: 1 when a promise was broken."""
    parser = SESSIONS.parser()
    parser.add_argument("--check", type=Path, metavar="HISTORY", help="check a recorded history again")
    args = parser.parse_args(arguments)
    if args.check is None:
        return SESSIONS.run(args)
    verdict = check(read(args.check))
    print(verdict.text(limit=100))
    return 0 if verdict.ok else 1


if __name__ == "__main__":
    sys.exit(main())
