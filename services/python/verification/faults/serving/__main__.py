"""``python -m verification.faults.serving``: restart, kill and freeze the parts of a serving pool under load.

A run of all scenarios saves ``docs/figures/faults-serving.json``. ``--check HISTORY`` checks a recorded history again.
"""

from __future__ import annotations

import sys

from verification.faults.package_run import ScenarioPackage
from verification.faults.serving.checker import check

SERVING = ScenarioPackage(
    package="verification.faults.serving",
    report="faults-serving",
    title="Faults of serving pools",
    description="Restarts, kills and freezes the parts of a serving pool while clients send requests.",
    about=(
        "Two gateways, groups that answer requests, and a real server (Valkey) run on one machine, without Ray. Each "
        "request has a deadline of 30 s. Clients record when each answer began and ended, and groups record what they "
        "ran. A checker decides from both records whether a promise was broken."
    ),
    jobs=2,
    check=check,
)


if __name__ == "__main__":
    sys.exit(SERVING.main())
