"""Clocks that step by an hour while tasks run: the clock of the Redis server, and those of gateways and groups."""

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
from verification.faults.environment.invariants import inconsistencies
from verification.faults.environment.preload import PreloadAbsentError
from verification.faults.environment.skew import Skew
from verification.faults.environment.traffic import Traffic, connection, get_tasks, settle, unsettled
from verification.faults.options import PoolOptions
from verification.faults.scenario_catalogue import ScenarioContext, SkippedError, scenario
from verification.results import Row

HOUR_S = 3600
LEASE_S = 6.0
STEPS_S = (HOUR_S, -HOUR_S, 0)
"""The clock's errors, one after the other: an hour ahead, an hour behind, correct."""
LEASE_STEP_S = 2.0
"""A forward step advances the lease clock by at most this much."""


@contextmanager
def _skew(*names: str) -> Iterator[dict[str, Skew]]:
    with tempfile.TemporaryDirectory(prefix="daybreak-clock-") as folder:
        try:
            skews = {name: Skew(Path(folder), name) for name in names}
        except PreloadAbsentError as exc:
            raise SkippedError(str(exc)) from exc
        yield skews


def _start_long_tasks(cluster: FaultCluster, count: int) -> dict[str, float]:
    """Start ``count`` tasks of ten seconds. :returns: the submit time of each task, by its id."""
    body = {"pool": "solo", "input": {**RUNNING["input"], "steps": 100}}
    tasks = {}
    with connection(cluster.urls[0]) as client:
        for _ in range(count):
            began = time.monotonic()
            tasks[client.submit(body)] = began
    wait_until(
        lambda: all(
            task and task["state"] == "running" for task in get_tasks(cluster.urls, list(tasks)).values()
        ),
        30,
        "the tasks to run",
    )
    return tasks


def _step_clock(cluster: FaultCluster, step: Callable[[int], None], *, what: str) -> list[Row]:
    """Step the clock while long tasks run and short tasks come and go."""
    running = _start_long_tasks(cluster, 2)
    with Traffic(cluster.urls, "solo", threads=2, pause_s=0.03) as traffic:
        time.sleep(0.5)
        for seconds in STEPS_S:
            step(seconds)
            time.sleep(2.2)
        long_views: dict[str, dict[str, Any] | None] = settle(cluster.urls, list(running), timeout_s=60)
        overcharge_s = {
            task: float(view["usage"]["gpu_seconds"]) - (time.monotonic() - running[task])
            for task, view in long_views.items()
            if view is not None
        }
    short_views = settle(cluster.urls, list(traffic.accepted), timeout_s=60)
    with cluster.client() as client:
        problems = inconsistencies(client, cluster.keys("solo"))
    retried = [
        task for task, view in (long_views | short_views).items() if view is None or view["attempt"] != 1
    ]
    lost = [task for task, view in short_views.items() if view is None or view["state"] != "succeeded"]
    bad = [*lost, *unsettled(long_views), *problems]
    forward = sum(1 for a, b in zip((0, *STEPS_S), STEPS_S, strict=False) if b > a)
    bound = LEASE_STEP_S * forward
    steps = "+1 h, −2 h, +1 h"
    return [
        Row(
            f"{what} stepped by {steps}: tasks that needed another attempt",
            len(retried),
            "tasks",
            target="0",
            held=not retried,
            note=f"of {len(long_views) + len(short_views)} tasks; lease {LEASE_S:g} s",
        ),
        Row(
            f"{what} stepped: accepted tasks lost, not succeeded, or inconsistent",
            len(bad),
            "tasks",
            target="0",
            held=not bad,
            note="; ".join(bad[:2]),
        ),
        Row(
            f"{what} stepped: largest overcharge of a task, compared with real seconds × ranks",
            max(0.0, *overcharge_s.values()),
            "s",
            target=f"≤ {bound:g} s ({LEASE_STEP_S:g} s per forward step)",
            held=max(0.0, *overcharge_s.values()) <= bound,
        ),
    ]


@scenario(
    "clock-server", "the server's wall clock steps by ± 1 h: no lease expires, no task is lost or overcharged"
)
def clock_server(context: ScenarioContext) -> list[Row]:
    """The scripts read the server's clock with the command ``TIME``."""
    with _skew("server") as skews:
        clock = skews["server"]
        with _disk() as disk:
            place = {"server_folder": disk.folder} if disk is not None else {}
            with context.cluster(
                environment={"server": clock.environment}, lease_s=LEASE_S, **place
            ) as cluster:
                # After the server's clock goes back, the server makes no fsync until the clock shows the time of the
                # step again. So count the usual fsyncs before the first step.
                usual = None if disk is None else _count_fsyncs(cluster, disk)
                rows = _step_clock(cluster, clock.step_to, what="server clock")
                if disk is not None and usual is not None:
                    clock.step_to(-HOUR_S)
                    rows.append(_fsync_row(usual, _count_fsyncs(cluster, disk)))
    return rows


@contextmanager
def _disk() -> Iterator[FuseDisk | None]:
    """A disk that counts fsyncs, or ``None`` if this machine cannot mount one."""
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


def _count_fsyncs(cluster: FaultCluster, disk: FuseDisk) -> int:
    """How many fsyncs the server makes during three seconds of writes."""
    before = disk.fsyncs()
    with Traffic(cluster.urls, "solo", threads=1, pause_s=0.05):
        time.sleep(3.0)
    return disk.fsyncs() - before


def _fsync_row(usual: int, after: int) -> Row:
    """Under ``everysec`` the server uses its wall clock to decide when the next fsync is due."""
    return Row(
        "`everysec`: fsyncs in 3 s of writes after the server clock went back by 1 h",
        after,
        "fsyncs",
        baseline=float(usual),
        baseline_what="before the first step",
        note="none: until the hour has passed or the server restarts, a power cut may lose everything written "
        "since the step. Slew the clock, do not step it"
        if after == 0
        else "",
    )


@scenario(
    "clock-components", "the wall clocks of gateways and groups step by ± 1 h: no task is lost or overcharged"
)
def clock_components(context: ScenarioContext) -> list[Row]:
    """Only ids and timestamps may show that a clock has stepped."""
    with _skew("gateway", "solo") as skews:
        environment: Mapping[str, Mapping[str, str]] = {
            name: skew.environment for name, skew in skews.items()
        }

        def step(seconds: int) -> None:
            skews["gateway"].step_to(seconds)
            skews["solo"].step_to(-seconds)

        # Each of these components starts in an interpreter of its own, which takes a second of CPU time. So this
        # cluster has fewer of them than usual.
        pools = (PoolOptions(groups=2),)
        with context.cluster(environment=environment, lease_s=LEASE_S, gateways=1, pools=pools) as cluster:
            return _step_clock(cluster, step, what="gateway and group clocks")
