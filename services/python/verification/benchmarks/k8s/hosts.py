"""Measures how long two pools take to wake: the time until a group of two hosts has loaded its model. One pool begins
with a warm head, the other without any pod. The wake from the warm head is compared with a baseline.
"""

from __future__ import annotations

import time

from testkit.kubernetes.deployment import Deployment
from testkit.kubernetes.values import pool
from verification.benchmarks.k8s import rows
from verification.benchmarks.k8s.baselines import Baselines
from verification.benchmarks.k8s.timeline import PAUSE_S, run_cycle
from verification.results import Report

ABOUT = (
    "The same cluster with two pools of the tiny video model. A group has two hosts with one rank on each. Pool `pair` "
    "keeps its Ray head (*warm head*); pool `video` keeps no pod. The baseline alternates with the wakes of `pair`: "
    "two bare pods start at once, and each runs Ray's own `ray start` and then loads the model. The phases are those "
    "in the pool's record."
)
WARM, COLD, HOSTS = "pair", "video", 2


def configure(deployment: Deployment) -> None:
    """Set the pools before the deployment is installed."""
    deployment.values["pools"] = {
        WARM: pool("video", ranks=HOSTS, hosts=HOSTS, idle={"mode": "workers"}),
        COLD: deployment.values["pools"][COLD],
    }


def measure(deployment: Deployment, report: Report, *, times: int) -> None:
    """Measure each of the two wakes ``times`` times. There is a pause of ``PAUSE_S`` before each measured wake."""
    deployment.wait_for_zero(COLD, head=False)
    deployment.wait_for_zero(WARM, head=True)
    baselines = Baselines(deployment)
    # The first cycle also warms up the node, so its time does not count.
    run_cycle(deployment, WARM, while_idle=lambda: baselines.capture(WARM))
    warm, cold = [], []
    for _ in range(times):
        deployment.wait_for_zero(WARM, head=True)
        time.sleep(PAUSE_S)
        baselines.whole(WARM, hosts=HOSTS)
        time.sleep(PAUSE_S)
        warm.append(run_cycle(deployment, WARM))
    for _ in range(times):
        deployment.wait_for_zero(COLD, head=False)
        time.sleep(PAUSE_S)
        cold.append(run_cycle(deployment, COLD))
    for row in rows.hosts("Warm head", warm, baselines.whole_s):
        report.add(row)
    for row in rows.hosts("No pods", cold, ()):
        report.add(row)
