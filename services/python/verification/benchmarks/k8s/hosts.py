"""A group of two hosts with its model: woken on a warm head, beside what it takes at least, and from no pods."""

from __future__ import annotations

import time

from testkit.kubernetes.deployment import Deployment
from testkit.kubernetes.values import pool
from verification.benchmarks.k8s import rows
from verification.benchmarks.k8s.baselines import Baselines
from verification.benchmarks.k8s.timeline import REST_S, ride
from verification.results import Report

ABOUT = (
    "The same cluster, two pools of the tiny video model, two hosts a group and a rank on each: the head of `pair` "
    "stays, of `video` nothing does. The baseline is measured in turns with the wakes of `pair`: two bare pods at once, "
    "in each Ray's own `ray start` and then the load of the model."
)
WARM, COLD, HOSTS = "pair", "video", 2


def furnish(deployment: Deployment) -> None:
    """The pools, before the deployment is opened."""
    deployment.values["pools"] = {
        WARM: pool("video", ranks=HOSTS, hosts=HOSTS, idle={"mode": "workers"}),
        COLD: deployment.values["pools"][COLD],
    }


def measure(deployment: Deployment, report: Report, *, times: int) -> None:
    """Each so many times, after the same rest."""
    deployment.wait_for_zero(COLD, head=False)
    deployment.wait_for_zero(WARM, head=True)
    baselines = Baselines(deployment)
    # Also what is first of its kind on this node: it counts for nothing.
    ride(deployment, WARM, on_ride=lambda: baselines.see(WARM))
    warm, cold = [], []
    for _ in range(times):
        deployment.wait_for_zero(WARM, head=True)
        time.sleep(REST_S)
        baselines.whole(WARM, hosts=HOSTS)
        time.sleep(REST_S)
        warm.append(ride(deployment, WARM))
    for _ in range(times):
        deployment.wait_for_zero(COLD, head=False)
        time.sleep(REST_S)
        cold.append(ride(deployment, COLD))
    for row in rows.hosts("two hosts, warm head", warm, baselines.whole_s):
        report.add(row)
    for row in rows.hosts("two hosts, from no pods", cold, ()):
        report.add(row)
