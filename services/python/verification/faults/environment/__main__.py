"""``python -m verification.faults.environment``: injects faults of the network, disk, memory, clocks and S3.

A run of all scenarios saves ``docs/figures/faults-environment.json``.
"""

from __future__ import annotations

import sys

from verification.faults.package_run import ScenarioPackage

ENVIRONMENT = ScenarioPackage(
    package="verification.faults.environment",
    report="faults-environment",
    title="Faults of the environment",
    description="Injects faults of the network, disk, memory, clocks and S3.",
    about=(
        "Real gateways, groups and a real server run on one machine while their environment fails: the network "
        "between them (TCP proxies), the disk (it loses what was not fsynced, or it is full), memory, clocks and "
        "an S3 server. Each scenario has its own cluster. `Server` means Valkey."
    ),
    jobs=2,
)


if __name__ == "__main__":
    sys.exit(ENVIRONMENT.main())
