"""Two scenarios: a kill at every failpoint in turn, and kills of leaders whose tasks have a checkpoint."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

from testkit.waiting import wait_until
from verification.faults import mixed
from verification.faults.checks.observations import echo_digest
from verification.faults.cluster import FaultCluster
from verification.faults.failpoints import ALL, GATEWAY
from verification.faults.history import read
from verification.faults.load import Load
from verification.faults.options import PoolOptions
from verification.faults.scenario_catalogue import ScenarioContext, ViolatedError, scenario
from verification.faults.scenarios.mixed_runs import BOUND_S, bound
from verification.results import Row

POOLS = (PoolOptions(name="solo", ranks=1, groups=2), PoolOptions(name="pair", ranks=2, groups=1))
UPLOADS = ("mid-upload", "after-upload", "before-settle", "after-settle")
_TASK: dict[str, Any] = {"steps": 8, "step_s": 0.03}


def provoke(cluster: FaultCluster, load: Load, point: str) -> None:
    """Arm a failpoint, and submit up to six tasks that reach it, until a process dies there."""
    before = len(cluster.hits())
    cluster.arm(point)
    for tries_left in range(6, 0, -1):
        _reach(cluster, load, point, before)
        try:
            wait_until(
                lambda: any(hit[0] == point for hit in cluster.hits()[before:]), 15, f"a death at {point}"
            )
        except TimeoutError:
            if tries_left == 1:
                raise
        else:
            return


def _reach(cluster: FaultCluster, load: Load, point: str, before: int) -> None:
    if point in ("after-tick", "after-delete", "after-reap"):
        # A lost attempt leaves a lease to reap and files to delete.
        load.submit("solo", message=point, readers=1, **_TASK)
        cluster.arm("between-steps", passes=2)
    elif point == "follower-mid-step":
        load.submit("pair", message=point, readers=1, all_ranks=True, **_TASK)
    elif point == "after-cancel":
        task = load.submit("solo", message=point, steps=200, step_s=0.03)
        load.spawn(load.cancel(task))
    else:
        pool = "pair" if before % 3 == 2 else "solo"
        load.submit(pool, message=point, readers=1, artifact_bytes=100_000, **_TASK)


@scenario(
    "named",
    "kills a process at each failpoint in turn: at claims, steps, uploads, settles, replies, ticks and others",
)
def run_named(context: ScenarioContext) -> list[Row]:
    """Kill a process at each failpoint once, or twelve times in a long run. Then check the history."""
    rounds = context.repeats(1, 12)
    with context.cluster(pools=POOLS, checkpoint_s=0.05) as cluster, Load(cluster, seed=context.seed) as load:
        for at in range(rounds):
            for point in ALL:
                provoke(cluster, load, point)
            context.log(f"   round {at + 1} of {rounds}: {len(cluster.hits())} deaths at failpoints")
        cluster.disarm()
        verdict = mixed.settle(cluster, load, bound_s=BOUND_S)
        hits = Counter(point for point, *_ in cluster.hits())
        downloads = verdict.counts.get("download.ok", 0)
        if not verdict.ok:
            raise ViolatedError(f"{verdict.text()}\nhistory: {cluster.history.path}")
    at_upload = sum(hits[point] for point in UPLOADS)
    return [
        Row(
            f"Tasks lost or completed twice, with kills at each of {len(ALL)} failpoints",
            0,
            "tasks",
            target="0",
            held=True,
            note=f"{hits.total()} kills, {sum(hits[p] for p in GATEWAY)} of them of gateways; {bound(hits.total())}",
        ),
        Row(
            "Artifacts that a task shows but that cannot be read, with kills at each step of the upload",
            0,
            "files",
            target="0",
            held=True,
            note=f"{at_upload} kills, {downloads} downloads, each with the published SHA-256",
        ),
    ]


@scenario("resume", "kills leaders after a checkpoint; results must equal those of uninterrupted runs")
def run_resume(context: ScenarioContext) -> list[Row]:
    """Kill leaders of tasks that have a checkpoint, and compare the results with those of an uninterrupted run."""
    rounds, steps = context.repeats(3, 15), 60
    with (
        context.cluster(pools=(PoolOptions(groups=4),), checkpoint_s=0.05) as cluster,
        Load(cluster, seed=context.seed) as load,
    ):
        for at in range(rounds):
            tasks = [
                load.submit("solo", message=f"r{at % 7}", steps=steps, step_s=0.04, max_strikes=20)
                for _ in range(4)
            ]
            for task in tasks:
                wait_until(lambda task=task: _checkpoint(cluster, task), 60, f"a checkpoint of {task}")
            for target in cluster.targets("leader"):
                cluster.kill(target)
            if at + 1 < rounds:
                time.sleep(cluster.options.lease_s)
        verdict = mixed.settle(cluster, load, bound_s=BOUND_S)
        if not verdict.ok:
            raise ViolatedError(f"{verdict.text()}\nhistory: {cluster.history.path}")
        records = [line["record"] for line in read(cluster.history.path) if line["op"] == "final"]
        kills = mixed.deaths(cluster)["leader"]
    resumed = sum(1 for record in records if record.get("resumed_from_step", 0) > 0)
    same = sum(
        1
        for record in records
        for artifact in record["artifacts"]
        if artifact["sha256"] == echo_digest(record["input"]["message"], steps)
    )
    return [
        Row(
            "Results that differ from an uninterrupted run, after kills of leaders with a checkpoint",
            len(records) - same,
            "results",
            target="0",
            held=same == len(records),
            note=f"{len(records)} tasks, {kills} kills, {resumed} tasks resumed from a checkpoint in "
            "their last attempt",
        )
    ]


def _checkpoint(cluster: FaultCluster, task: str) -> bool:
    with cluster.client() as client:
        return client.hget(cluster.keys("solo").of("out", task), "ckpt") is not None
