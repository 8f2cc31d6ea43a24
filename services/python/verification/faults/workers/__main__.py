"""``python -m verification.faults.workers``: kill and restart workers, engines, gateways and the store under load.

A run of all scenarios saves ``docs/figures/faults-workers.json``. ``python -m verification.faults.serving --check
HISTORY`` checks a recorded history again.
"""

from __future__ import annotations

import sys

from verification.faults.package_run import ScenarioPackage

WORKERS = ScenarioPackage(
    package="verification.faults.workers",
    report="faults-workers",
    title="Faults of models on workers",
    description="Kills and restarts workers, engines, gateways and the store while clients send requests.",
    about=(
        "Two gateways, three workers with one engine each, and a real server (Valkey) run on one machine, without Ray. "
        "Each request has a deadline of 30 s. Clients record when each answer began and ended, and engines record what "
        "they ran. A checker decides from both records whether a promise was broken."
    ),
    jobs=2,
)


if __name__ == "__main__":
    sys.exit(WORKERS.main())
