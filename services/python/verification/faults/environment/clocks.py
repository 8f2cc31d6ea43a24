"""Clocks that step by an hour while tasks run: the server's, and those of gateways and groups."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from testkit.waiting import wait_until
from verification.faults.cluster import FaultCluster
from verification.faults.environment.disk import DiskAbsentError, FuseDisk
from verification.faults.environment.full import RUNNING
from verification.faults.environment.invariants import half_done
from verification.faults.environment.preload import PreloadAbsentError
from verification.faults.environment.skew import Skew
from verification.faults.environment.traffic import Traffic, caller, look, settle, unsettled
from verification.faults.options import PoolPlan
from verification.faults.registry import Lab, SkippedError, scenario
from verification.results import Row

HOUR_S = 3600
LEASE_S = 6.0
STEPS_S = (HOUR_S, -HOUR_S, 0)
"""Where the clock is put, one after the other: an hour ahead, then an hour behind, then right."""
LEASE_STEP_S = 2.0
"""So much of a forward step the lease clock takes for time that passed."""


@contextmanager
def _skew(*names: str) -> Iterator[dict[str, Skew]]:
    with tempfile.TemporaryDirectory(prefix="daybreak-clock-") as folder:
        try:
            skews = {name: Skew(Path(folder), name) for name in names}
        except PreloadAbsentError as exc:
            raise SkippedError(str(exc)) from exc
        yield skews


def _long(cluster: FaultCluster, count: int) -> dict[str, float]:
    """So many tasks that run now, for ten seconds: id → when they were handed in."""
    body = {"pool": "solo", "input": {**RUNNING["input"], "steps": 100}}
    tasks = {}
    with caller(cluster.urls[0]) as client:
        for _ in range(count):
            began = time.monotonic()
            tasks[client.submit(body)] = began
    wait_until(
        lambda: all(one and one["state"] == "running" for one in look(cluster.urls, list(tasks)).values()),
        30,
        "the tasks to run",
    )
    return tasks


def _through_steps(cluster: FaultCluster, step: Callable[[int], None], *, what: str) -> list[Row]:
    """Step the clock while long tasks run and short ones come and go."""
    running = _long(cluster, 2)
    with Traffic(cluster.urls, "solo", threads=2, pause_s=0.03) as traffic:
        time.sleep(0.5)
        for seconds in STEPS_S:
            step(seconds)
            time.sleep(2.2)
        found: dict[str, dict[str, Any] | None] = settle(cluster.urls, list(running), timeout_s=60)
        over = {
            task: float(one["usage"]["gpu_seconds"]) - (time.monotonic() - running[task])
            for task, one in found.items()
            if one is not None
        }
    others = settle(cluster.urls, list(traffic.accepted), timeout_s=60)
    with cluster.client() as client:
        half = half_done(client, cluster.keys("solo"))
    again = [task for task, one in (found | others).items() if one is None or one["attempt"] != 1]
    lost = [task for task, one in others.items() if one is None or one["state"] != "succeeded"]
    bad = [*lost, *unsettled(found), *half]
    forward = sum(1 for a, b in zip((0, *STEPS_S), STEPS_S, strict=False) if b > a)
    bound = LEASE_STEP_S * forward
    steps = "+1 h, −2 h, +1 h"
    return [
        Row(
            f"{what} steps by {steps}: tasks whose attempt was taken from them",
            len(again),
            "tasks",
            target="0",
            held=not again,
            note=f"of {len(found) + len(others)}; lease {LEASE_S:g} s",
        ),
        Row(
            f"{what} steps: accepted tasks lost, not succeeded, or half there",
            len(bad),
            "tasks",
            target="0",
            held=not bad,
            note="; ".join(bad[:2]),
        ),
        Row(
            f"{what} steps: most GPU-seconds charged over real seconds × ranks, of a task that ran through",
            max(0.0, *over.values()),
            "s",
            target=f"≤ {bound:g} s ({LEASE_STEP_S:g} s a forward step)",
            held=max(0.0, *over.values()) <= bound,
        ),
    ]


@scenario(
    "clock-server", "the server's wall clock steps by ± 1 h: no lease ends, nothing is lost or charged by it"
)
def clock_server(lab: Lab) -> list[Row]:
    """Redis's TIME is what the scripts see."""
    with _skew("server") as skews:
        clock = skews["server"]
        with _disk() as disk:
            place = {"server_folder": disk.folder} if disk is not None else {}
            with lab.cluster(environment={"server": clock.environment}, lease_s=LEASE_S, **place) as cluster:
                rows = _through_steps(cluster, clock.step_to, what="the server's clock")
                if disk is not None:
                    rows.append(_fsyncs(cluster, disk, clock))
    return rows


@contextmanager
def _disk() -> Iterator[FuseDisk | None]:
    """A disk that counts fsyncs, where there can be one."""
    with tempfile.TemporaryDirectory(prefix="daybreak-disk-") as folder:
        try:
            disk = FuseDisk(Path(folder) / "data")
        except DiskAbsentError:
            yield None
            return
        try:
            yield disk
        finally:
            disk.close()


def _fsyncs(cluster: FaultCluster, disk: FuseDisk, clock: Skew) -> Row:
    """A server measures "every second" by its wall clock: set back, it may sync no more for as long."""

    def count(seconds: float) -> int:
        before = disk.fsyncs()
        with Traffic(cluster.urls, "solo", threads=1, pause_s=0.05):
            time.sleep(seconds)
        return disk.fsyncs() - before

    usual = count(3.0)
    clock.step_to(-HOUR_S)
    after = count(3.0)
    return Row(
        "`everysec`: fsyncs in 3 s of writes after the server's clock was set back by 1 h",
        after,
        "fsyncs",
        floor=float(usual),
        floor_what="before",
        note="none: until that hour is over, or the server is started again, a power cut may lose all that was "
        "written in it. Slew such a clock, do not step it"
        if after == 0
        else "",
    )


@scenario("clock-parts", "the wall clocks of gateways and groups step by ± 1 h: the same holds")
def clock_parts(lab: Lab) -> list[Row]:
    """Ids and stamps may be off by the step, and nothing else."""
    with _skew("gateway", "solo") as skews:
        environment: Mapping[str, Mapping[str, str]] = {name: one.environment for name, one in skews.items()}

        def step(seconds: int) -> None:
            skews["gateway"].step_to(seconds)
            skews["solo"].step_to(-seconds)

        # These parts start in interpreters of their own, which takes a second of a core each.
        pools = (PoolPlan(groups=2),)
        with lab.cluster(environment=environment, lease_s=LEASE_S, gateways=1, pools=pools) as cluster:
            return _through_steps(cluster, step, what="gateways' and groups' clocks")
