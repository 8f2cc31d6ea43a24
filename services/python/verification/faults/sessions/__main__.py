"""``python -m verification.faults.sessions``: kill, freeze and restart the parts of a pool while clients speak.

A run of all scenarios saves ``docs/figures/faults-sessions.json``. ``--check HISTORY`` checks a recorded history again.
"""

from __future__ import annotations

import sys

from verification.faults.package_run import ScenarioPackage
from verification.faults.sessions.checker import check

SESSIONS = ScenarioPackage(
    package="verification.faults.sessions",
    report="faults-sessions",
    title="Faults of streaming sessions",
    description="Kills, freezes and restarts the parts of a pool of sessions while clients speak.",
    about=(
        "Two gateways, a real server (Valkey), and groups of the workload `simulated-speech` run on one machine, "
        "without Ray. Clients stream audio in real time. The text of a session depends on every sample of its audio. "
        "So the text that a client received shows a checker whether audio was lost or text was repeated."
    ),
    jobs=4,
    check=check,
)


if __name__ == "__main__":
    sys.exit(SESSIONS.main())
