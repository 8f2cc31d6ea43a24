"""Leases: how soon a lost task is taken over, that a live one never is, that a zombie writes nothing."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from testkit.waiting import wait_until
from verification.faults import mixed, server
from verification.faults.cluster import FaultCluster, Target
from verification.faults.history import Line, read
from verification.faults.load import Load
from verification.faults.options import PoolPlan
from verification.faults.registry import Lab, ViolatedError, scenario
from verification.faults.scenarios.runs import BOUND_S, bound
from verification.results import Row

LONG_TASK = {"steps": 10_000, "step_s": 0.05}


def decide(cluster: FaultCluster, load: Load, *, bound_s: float = BOUND_S) -> list[Line]:
    """Let all end and check it; the final records. :raises ViolatedError:"""
    verdict = mixed.settle(cluster, load, bound_s=bound_s)
    if not verdict.ok:
        raise ViolatedError(f"{verdict.text()}\nhistory: {cluster.history.path}")
    return [line["record"] for line in read(cluster.history.path) if line["op"] == "final"]


def running_leases(cluster: FaultCluster, pool: str, count: int) -> None:
    """Until so many tasks of a pool are held by groups."""

    def look() -> bool:
        with cluster.client() as client:
            return int(client.zcard(cluster.keys(pool).one("leases"))) >= count

    wait_until(look, 60, f"{count} claimed tasks in {pool}")


def running(cluster: FaultCluster, pool: str, count: int) -> None:
    """Until so many tasks of a pool run and have come to a step."""
    keys = cluster.keys(pool)

    def look() -> bool:
        with cluster.client() as client:
            tasks = client.zrange(keys.one("leases"), 0, -1)
            return len(tasks) >= count and all(client.hget(keys.of("task", task), "step") for task in tasks)

    wait_until(look, 60, f"{count} running tasks in {pool}")


def spread(values: Sequence[float]) -> str:
    """``p50 1.2, p99 1.4, max 1.4 (n = 16)``."""
    ordered = sorted(values)
    p99 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    return f"p50 {statistics.median(ordered):.2f}, p99 {p99:.2f}, max {ordered[-1]:.2f} (n = {len(ordered)})"


def _after(lines: Sequence[Line], task: str, since: float, kind: str) -> float | None:
    for line in lines:
        if line["op"] == "event" and line["task"] == task and line["t"] >= since and line["type"] == kind:
            return float(line["t"])
    return None


def _held_by(cluster: FaultCluster, pool: str) -> dict[str, str]:
    """Which leader holds which task: name of the process → task."""
    keys, found = cluster.keys(pool), {}
    with cluster.client() as client:
        for task in client.zrange(keys.one("leases"), 0, -1):
            group = client.hget(keys.of("task", task), "group")
            host = client.hget(keys.of("group", group), "hosts") or ""
            found[str(host)] = task
    return found


def _at_work(cluster: FaultCluster, pool: str) -> list[tuple[Target, str]]:
    """Every leader with the task that it holds; none while one of them holds nothing."""
    held = _held_by(cluster, pool)
    found = [
        (target, task)
        for target in cluster.targets("leader")
        for hosts, task in held.items()
        if target.name in hosts
    ]
    return found if len(found) == len(cluster.targets("leader")) else []


def _kill_and_time(
    cluster: FaultCluster, load: Load, *, rounds: int, groups: int
) -> tuple[list[float], list[float]]:
    kills: list[tuple[float, str]] = []
    for _ in range(rounds):
        cluster.wait_ready()
        for _ in range(groups):
            load.submit("solo", readers=1, max_strikes=20, **LONG_TASK)
        running(cluster, "solo", groups)
        time.sleep(cluster.options.lease_s)  # the renewals of the leaders are out of step by now
        for target, task in wait_until(lambda: _at_work(cluster, "solo"), 60, "every leader to hold a task"):
            at = cluster.history.elapsed_s
            cluster.kill(target)
            kills.append((at, task))
        wait_until(lambda: _told(cluster, kills[-groups:]), 60, "the next attempts to begin")
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


def _told(cluster: FaultCluster, kills: Sequence[tuple[float, str]]) -> bool:
    cluster.history.flush()
    lines = list(read(cluster.history.path))
    return all(_after(lines, task, at, "started") is not None for at, task in kills)


@scenario(
    "reclaim",
    "a leader is killed: how long until its task is taken from it, and until the next attempt begins",
    alone=True,
)
def run_reclaim(lab: Lab) -> list[Row]:
    """Groups side by side, each killed in the middle of a task: without guards it is the lease that ends, with
    them the guard that tells. Long: with the default lease of 15 s."""
    lease_s, groups = (15.0, 12) if lab.long else (4.0, 6)
    rounds = lab.times(1, 2)
    pools = (PoolPlan(groups=groups),)
    with lab.cluster(pools=pools, lease_s=lease_s) as cluster, Load(cluster, seed=lab.seed) as load:
        by_lease, again = _kill_and_time(cluster, load, rounds=rounds, groups=groups)
        decide(cluster, load)
    with (
        lab.cluster(pools=pools, lease_s=lease_s, guards=True) as cluster,
        Load(cluster, seed=lab.seed) as load,
    ):
        by_guard, _ = _kill_and_time(cluster, load, rounds=rounds, groups=groups)
        decide(cluster, load)
    worst = max(by_lease) / lease_s
    return [
        Row(
            f"Kill of a leader and its guard → strike, lease {lease_s:g} s, the longest",
            round(worst, 2),
            "leases",
            target="≤ 1.5 × lease",
            held=worst <= 1.5,
            note=f"seconds: {spread(by_lease)}; the next attempt has begun after: {spread(again)}",
        ),
        Row(
            "Kill of a leader → strike by its guard, the longest",
            round(max(by_guard), 2),
            "s",
            target="≤ 1.5 × lease",
            held=max(by_guard) <= 1.5 * lease_s,
            note=f"seconds: {spread(by_guard)}",
        ),
    ]


@scenario("live-long", "a task of ten leases lives through heavy work and an outage, and is never run again")
def run_live_long(lab: Lab) -> list[Row]:
    """Python that computes, C that holds the interpreter's lock for more than a lease, the server away for two."""
    lease_s, rounds = 6.0, lab.times(1, 3)
    short_s = lease_s / 80  # more steps than its stream keeps events of could not be read whole at the end
    kinds = (("sleep", short_s), ("compute", short_s), ("hold_gil", 0.1), ("hold_gil", 1.25 * lease_s))
    with (
        lab.cluster(pools=(PoolPlan(groups=4),), lease_s=lease_s, guards=True) as cluster,
        Load(cluster) as load,
    ):
        for _ in range(rounds):
            for kind, step_s in kinds:
                steps = round(10 * lease_s / step_s)
                load.submit("solo", message=kind, steps=steps, step_s=step_s, step_kind=kind, readers=1)
            running_leases(cluster, "solo", len(kinds))
            time.sleep(lease_s)
            cluster.kill(cluster.targets("server")[0], down_s=2 * lease_s)
            time.sleep(2 * lease_s)
            wait_until(lambda: server.answers(cluster.port), 30, "the server")
            load.settle_down(20 * lease_s)
        records = decide(cluster, load)
        again = [record for record in records if record["attempt"] != 1]
        whys = [why for record in again for why in _why_again(cluster, record)]
        if again:
            cluster.keep = True
            lab.say(f"the history and the logs are in {cluster.folder}")
    return [
        Row(
            "Live tasks of 10 leases that were run again",
            len(again),
            "tasks",
            target="0",
            held=not again,
            note=f"{len(records)} tasks, lease {lease_s:g} s: sleeping, computing in Python, holding Python's lock for "
            f"0.1 s and for 1.25 leases at a time; each with the server killed and away for 2 leases"
            + "".join(f"; {why}" for why in whys),
        )
    ]


def _why_again(cluster: FaultCluster, record: Line) -> list[str]:
    """What the stream of a task says of each attempt that was not its last."""
    cluster.history.flush()
    kind = record["input"]["message"]
    return [
        f"{kind} at {line['t']:.1f} s: {line['data'].get('reason')}: {line['data'].get('message')}"
        for line in read(cluster.history.path)
        if line["op"] == "event" and line["task"] == record["id"] and line["type"] == "retrying"
    ]


@scenario("zombies", "leaders frozen for two leases wake up: nothing that they write counts")
def run_zombies(lab: Lab) -> list[Row]:
    """Freeze every leader in the middle of a task, let others take over, and let them go on."""
    rounds = lab.times(2, 10)
    with lab.cluster(pools=(PoolPlan(groups=6),)) as cluster, Load(cluster, seed=lab.seed) as load:
        for _ in range(rounds):
            for number in range(6):
                load.submit("solo", message=f"z{number}", steps=60, step_s=0.04, readers=1)
            running(cluster, "solo", 6)
            frozen: list[Target] = [one for one in cluster.targets("leader")[:3] if cluster.freeze(one)]
            time.sleep(2 * cluster.options.lease_s)
            for target in frozen:
                cluster.thaw(target)
            load.settle_down(60)
        records = decide(cluster, load)
        count = cluster.history.counts.get("fault.freeze-leader", 0)
    second = sum(1 for record in records if record["attempt"] > 1)
    return [
        Row(
            "Writes of a frozen leader that counted",
            0,
            "writes",
            target="0",
            held=True,
            note=f"{count} leaders frozen for 2 leases, {second} tasks taken over; {bound(count)}",
        )
    ]


@scenario(
    "poison", "a task that kills its process every time: so many attempts as it may have, and one dead letter"
)
def run_poison(lab: Lab) -> list[Row]:
    """``os._exit`` in the second step of every attempt, with 1, 2 and 3 strikes allowed."""
    with (
        lab.cluster(pools=(PoolPlan(groups=4),), lease_s=1.0) as cluster,
        Load(cluster, seed=lab.seed) as load,
    ):
        for number in range(lab.times(6, 30)):
            load.submit("solo", steps=4, fail_at=2, fail_kind="exit", max_strikes=1 + number % 3, readers=1)
            load.submit("solo", steps=4)
        records = decide(cluster, load)
        with cluster.client() as client:
            letters = client.zrange(cluster.keys("solo").one("dead"), 0, -1)
    poison = [record for record in records if "fail_at" in record["input"]]
    exact = [
        record
        for record in poison
        if record["attempt"] == record["max_strikes"] and record["state"] == "failed"
    ]
    ok = len(exact) == len(poison) == len(letters) == len(set(letters))
    return [
        Row(
            "Poison tasks with exactly `max_strikes` attempts and one dead letter",
            len(exact),
            "tasks",
            target=f"all {len(poison)}",
            held=ok,
            note=f"{len(records) - len(poison)} tasks between them succeeded",
        )
    ]
