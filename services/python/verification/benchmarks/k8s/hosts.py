"""A group of two hosts with its model: woken on a warm head, beside what it takes at least, and from no pods."""

from __future__ import annotations

import time

from testkit.kubernetes.deployment import House
from testkit.kubernetes.values import pool
from verification.benchmarks.k8s import rows
from verification.benchmarks.k8s.baselines import Floors
from verification.benchmarks.k8s.timeline import REST_S, ride
from verification.results import Report

ABOUT = (
    "The same cluster, two pools of the tiny video model, two hosts a group and a rank on each: the head of `pair` "
    "stays, of `video` nothing does. The floor is measured in turns with the wakes of `pair`: two bare pods at once, "
    "in each Ray's own `ray start` and then the load of the model."
)
WARM, COLD, HOSTS = "pair", "video", 2


def furnish(house: House) -> None:
    """The pools, before the house is opened."""
    house.values["pools"] = {
        WARM: pool("video", ranks=HOSTS, hosts=HOSTS, idle={"mode": "workers"}),
        COLD: house.values["pools"][COLD],
    }


def measure(house: House, report: Report, *, times: int) -> None:
    """Each so many times, after the same rest."""
    house.at_zero(COLD, head=False)
    house.at_zero(WARM, head=True)
    floors = Floors(house)
    # Also what is first of its kind on this node: it counts for nothing.
    ride(house, WARM, on_ride=lambda: floors.see(WARM))
    warm, cold = [], []
    for _ in range(times):
        house.at_zero(WARM, head=True)
        time.sleep(REST_S)
        floors.whole(WARM, hosts=HOSTS)
        time.sleep(REST_S)
        warm.append(ride(house, WARM))
    for _ in range(times):
        house.at_zero(COLD, head=False)
        time.sleep(REST_S)
        cold.append(ride(house, COLD))
    for row in rows.hosts("two hosts, warm head", warm, floors.whole_s):
        report.add(row)
    for row in rows.hosts("two hosts, from no pods", cold, ()):
        report.add(row)
