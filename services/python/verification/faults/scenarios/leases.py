"""Leases: another group soon takes over the task of a dead leader, but not that of a leader that is alive and works.
The store refuses a zombie's writes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from testkit.waiting import wait_until
from verification.faults import mixed, server
from verification.faults.cluster import FaultCluster
from verification.faults.history import Line, read
from verification.faults.load import Load
from verification.faults.options import PoolOptions
from verification.faults.replicas import Target
from verification.faults.scenario_catalogue import ScenarioContext, ViolatedError, scenario
from verification.faults.scenarios.mixed_runs import BOUND_S, bound
from verification.results import Row

LONG_TASK = {"steps": 10_000, "step_s": 0.05}


def decide(cluster: FaultCluster, load: Load, *, bound_s: float = BOUND_S) -> list[Line]:
    """Wait until all tasks have ended, and then check the history.

    :returns: the final records.
    :raises ViolatedError: when a promise was broken.
    """
    verdict = mixed.settle(cluster, load, bound_s=bound_s)
    if not verdict.ok:
        raise ViolatedError(f"{verdict.text()}\nhistory: {cluster.history.path}")
    return [line["record"] for line in read(cluster.history.path) if line["op"] == "final"]


def wait_claimed(cluster: FaultCluster, pool: str, count: int) -> None:
    """Wait until groups hold ``count`` tasks of a pool."""

    def look() -> bool:
        with cluster.client() as client:
            return int(client.zcard(cluster.keys(pool).single("leases"))) >= count

    wait_until(look, 60, f"{count} claimed tasks in {pool}")


def wait_running(cluster: FaultCluster, pool: str, count: int) -> None:
    """Wait until ``count`` tasks of a pool run and have reported a step."""
    keys = cluster.keys(pool)

    def look() -> bool:
        with cluster.client() as client:
            tasks = client.zrange(keys.single("leases"), 0, -1)
            return len(tasks) >= count and all(client.hget(keys.of("task", task), "step") for task in tasks)

    wait_until(look, 60, f"{count} running tasks in {pool}")


def spread(values: Sequence[float]) -> str:
    """The values in words: ``p50 1.20 s, p99 1.40 s, max 1.40 s (n = 16)``."""
    ordered = sorted(values)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"p50 {statistics.median(ordered):.2f} s, p99 {p99:.2f} s, max {ordered[-1]:.2f} s (n = {len(ordered)})"


def _after(lines: Sequence[Line], task: str, since: float, kind: str) -> float | None:
    """When a client saw the task's first event of this kind after ``since``; ``None`` if no client did."""
    for line in lines:
        if line["op"] == "event" and line["task"] == task and line["t"] >= since and line["type"] == kind:
            return float(line["t"])
    return None


def _held_by(cluster: FaultCluster, pool: str) -> dict[str, str]:
    """Maps the names of a group's hosts (one string) to the task that the group holds."""
    keys, held = cluster.keys(pool), {}
    with cluster.client() as client:
        for task in client.zrange(keys.single("leases"), 0, -1):
            group = client.hget(keys.of("task", task), "group")
            host = client.hget(keys.of("group", group), "hosts") or ""
            held[str(host)] = task
    return held


def _at_work(cluster: FaultCluster, pool: str) -> list[tuple[Target, str]]:
    """Every leader with the task that it holds; empty unless every leader holds one."""
    held = _held_by(cluster, pool)
    leaders = [
        (target, task)
        for target in cluster.targets("leader")
        for hosts, task in held.items()
        if target.name in hosts
    ]
    return leaders if len(leaders) == len(cluster.targets("leader")) else []


def _kill_and_time(
    cluster: FaultCluster, load: Load, *, rounds: int, groups: int
) -> tuple[list[float], list[float]]:
    kills: list[tuple[float, str]] = []
    for _ in range(rounds):
        cluster.wait_ready()
        for _ in range(groups):
            load.submit("solo", readers=1, max_strikes=20, **LONG_TASK)
        wait_running(cluster, "solo", groups)
        time.sleep(cluster.options.lease_s)  # after this, the leaders renew at different times
        for target, task in wait_until(lambda: _at_work(cluster, "solo"), 60, "every leader to hold a task"):
            at = cluster.history.elapsed_s
            cluster.kill(target)
            kills.append((at, task))
        wait_until(lambda: _restarted(cluster, kills[-groups:]), 60, "the next attempts to start")
        for _, task in kills[-groups:]:
            load.call(load.cancel(task))
    cluster.history.flush()
    lines = list(read(cluster.history.path))
    reclaimed = [_after(lines, task, at, "retrying") for at, task in kills]
    again = [_after(lines, task, at, "started") for at, task in kills]
    return (
        [end - at for end, (at, _) in zip(reclaimed, kills, strict=True) if end is not None],
        [end - at for end, (at, _) in zip(again, kills, strict=True) if end is not None],
    )


def _restarted(cluster: FaultCluster, kills: Sequence[tuple[float, str]]) -> bool:
    """Whether clients have seen the next attempt of every task start."""
    cluster.history.flush()
    lines = list(read(cluster.history.path))
    return all(_after(lines, task, at, "started") is not None for at, task in kills)


@scenario(
    "reclaim",
    "measures how long after a leader's death its task is reclaimed and the next attempt starts",
    alone=True,
)
def run_reclaim(context: ScenarioContext) -> list[Row]:
    """Kill the leaders of several groups in the middle of a task.

    Without watchdogs, the task's lease has to expire. With watchdogs, the watchdog reports the death. A long run uses
    the default lease of 15 s.
    """
    lease_s, groups = (15.0, 12) if context.long else (4.0, 6)
    rounds = context.repeats(1, 2)
    pools = (PoolOptions(groups=groups),)
    with context.cluster(pools=pools, lease_s=lease_s) as cluster, Load(cluster, seed=context.seed) as load:
        by_lease, again = _kill_and_time(cluster, load, rounds=rounds, groups=groups)
        decide(cluster, load)
    with (
        context.cluster(pools=pools, lease_s=lease_s, watchdogs=True) as cluster,
        Load(cluster, seed=context.seed) as load,
    ):
        by_watchdog, _ = _kill_and_time(cluster, load, rounds=rounds, groups=groups)
        decide(cluster, load)
    worst = max(by_lease) / lease_s
    return [
        Row(
            f"Leader and watchdog killed (lease {lease_s:g} s): longest time until its task gets a strike",
            round(worst, 2),
            "× lease",
            target="≤ 1.5 × lease",
            held=worst <= 1.5,
            note=f"{spread(by_lease)}; until the next attempt starts: {spread(again)}",
        ),
        Row(
            f"Leader killed, watchdog alive (lease {lease_s:g} s): longest time until its task gets a strike",
            round(max(by_watchdog), 2),
            "s",
            target="≤ 1.5 × lease",
            held=max(by_watchdog) <= 1.5 * lease_s,
            note=spread(by_watchdog),
        ),
    ]


@scenario("live-long", "a task of ten leases survives heavy work and an outage without a second attempt")
def run_live_long(context: ScenarioContext) -> list[Row]:
    """Run steps that sleep, that compute in Python, and that hold the GIL for 0.1 s or 1.25 leases. During the tasks,
    the server is down for 2 leases."""
    lease_s, rounds = 6.0, context.repeats(1, 3)
    # 800 steps of ``short_s`` last ten leases. The stream keeps their events, so the checker can read them all.
    short_s = lease_s / 80
    kinds = (("sleep", short_s), ("compute", short_s), ("hold_gil", 0.1), ("hold_gil", 1.25 * lease_s))
    with (
        context.cluster(pools=(PoolOptions(groups=4),), lease_s=lease_s, watchdogs=True) as cluster,
        Load(cluster) as load,
    ):
        for _ in range(rounds):
            for kind, step_s in kinds:
                steps = round(10 * lease_s / step_s)
                load.submit("solo", message=kind, steps=steps, step_s=step_s, step_kind=kind, readers=1)
            wait_claimed(cluster, "solo", len(kinds))
            time.sleep(lease_s)
            cluster.kill(cluster.targets("server")[0], down_s=2 * lease_s)
            time.sleep(2 * lease_s)
            wait_until(lambda: server.answers(cluster.port), 30, "the server")
            load.settle_down(20 * lease_s)
        records = decide(cluster, load)
        again = [record for record in records if record["attempt"] != 1]
        reasons = [reason for record in again for reason in _retry_reasons(cluster, record)]
        if again:
            cluster.keep = True
            context.log(f"the history and the logs are in {cluster.folder}")
    return [
        Row(
            "Tasks that run for 10 × lease and need a second attempt although their leader is alive",
            len(again),
            "tasks",
            target="0",
            held=not again,
            note=f"{len(records)} tasks, lease {lease_s:g} s. Their steps sleep, compute in Python, or hold the GIL "
            f"for 0.1 s or for 1.25 × lease; during each task the server is down for 2 × lease"
            + "".join(f"; {reason}" for reason in reasons),
        )
    ]


def _retry_reasons(cluster: FaultCluster, record: Line) -> list[str]:
    """Why each attempt but the last ended, from the ``retrying`` events that clients saw."""
    cluster.history.flush()
    kind = record["input"]["message"]
    return [
        f"{kind} at {line['t']:.1f} s: {line['data'].get('reason')}: {line['data'].get('message')}"
        for line in read(cluster.history.path)
        if line["op"] == "event" and line["task"] == record["id"] and line["type"] == "retrying"
    ]


@scenario("zombies", "leaders frozen for two leases wake up: the store refuses all their writes")
def run_zombies(context: ScenarioContext) -> list[Row]:
    """Freeze three leaders in the middle of a task, let other groups take over, and resume the leaders."""
    rounds = context.repeats(2, 10)
    with context.cluster(pools=(PoolOptions(groups=6),)) as cluster, Load(cluster, seed=context.seed) as load:
        for _ in range(rounds):
            for number in range(6):
                load.submit("solo", message=f"z{number}", steps=60, step_s=0.04, readers=1)
            wait_running(cluster, "solo", 6)
            leaders = cluster.targets("leader")[:3]
            frozen: list[Target] = [target for target in leaders if cluster.freeze(target)]
            time.sleep(2 * cluster.options.lease_s)
            for target in frozen:
                cluster.thaw(target)
            load.settle_down(60)
        records = decide(cluster, load)
        count = cluster.history.counts.get("fault.freeze-leader", 0)
    retried = sum(1 for record in records if record["attempt"] > 1)
    return [
        Row(
            "Writes of a frozen leader that the store accepted after it had lost its task",
            0,
            "writes",
            target="0",
            held=True,
            note=f"{count} leaders frozen for 2 × lease; {retried} tasks got another attempt; {bound(count, 'freeze')}",
        )
    ]


@scenario(
    "poison",
    "a task that kills its process every time uses exactly its allowed attempts and is one dead letter",
)
def run_poison(context: ScenarioContext) -> list[Row]:
    """Submit tasks whose second step calls ``os._exit`` in every attempt, with 1, 2 or 3 allowed strikes."""
    with (
        context.cluster(pools=(PoolOptions(groups=4),), lease_s=1.0) as cluster,
        Load(cluster, seed=context.seed) as load,
    ):
        for number in range(context.repeats(6, 30)):
            load.submit("solo", steps=4, fail_at=2, fail_kind="exit", max_strikes=1 + number % 3, readers=1)
            load.submit("solo", steps=4)
        records = decide(cluster, load)
        with cluster.client() as client:
            letters = client.zrange(cluster.keys("solo").single("dead"), 0, -1)
    poison = [record for record in records if "fail_at" in record["input"]]
    exact = [
        record
        for record in poison
        if record["attempt"] == record["max_strikes"] and record["state"] == "failed"
    ]
    ok = len(exact) == len(poison) == len(letters) == len(set(letters))
    return [
        Row(
            "Poison tasks (each attempt kills its process) with exactly `max_strikes` attempts and one dead letter",
            len(exact),
            "tasks",
            target=f"all {len(poison)}",
            held=ok,
            note=f"{len(records) - len(poison)} ordinary tasks, submitted in between, succeeded",
        )
    ]
