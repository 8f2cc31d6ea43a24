"""What clients were promised: streams without gap, a quick cancel, one task for one key, no task forgotten."""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import aclosing
from typing import Any

from verification.faults.history import read
from verification.faults.load import Load
from verification.faults.options import PoolPlan
from verification.faults.registry import Lab, ViolatedError, scenario
from verification.faults.scenarios.leases import decide, running
from verification.faults.schedule import Submission
from verification.results import Row


@scenario("cuts", "a thousand cut streams, gateways killed among them: no gap, no repeat")
def run_cuts(lab: Lab) -> list[Row]:
    """Long tasks, many readers; each stream is cut before every fourth chunk, often within an event."""
    wanted = lab.times(1000, 5000)
    with lab.cluster(pools=(PoolPlan(groups=4),)) as cluster, Load(cluster, seed=lab.seed, cut=0.25) as load:
        network = load.networks[load.tenants[0]]
        number, since = 0, time.monotonic()
        while network.cuts < wanted:
            for _ in range(4):
                number += 1
                task = load.submit("solo", message=f"c{number}", steps=100, step_s=0.03)
                for _ in range(8):
                    load.spawn(load.read(task, load.tenants[0]))
            load.settle_down(60)
            cluster.kill(cluster.targets("gateway")[number % 2])
            load.wait_clients(60)
            if time.monotonic() - since > 600:
                raise ViolatedError(f"only {network.cuts} cuts in ten minutes")
        decide(cluster, load)
        events, readers = cluster.history.counts["event.saw"], cluster.history.counts["reader.end"]
        cuts = network.cuts
    return [
        Row(
            "Gaps and repeats in cut streams",
            0,
            "events",
            target="0 in 1,000 cuts",
            held=cuts >= 1000,
            note=f"{cuts:,} cuts in {readers} streams, {events:,} events, {number // 4} gateways killed",
        )
    ]


@scenario("cancel", "a running task is cancelled: how long until its group has stopped", alone=True)
def run_cancel(lab: Lab) -> list[Row]:
    """Steps of 0.3 s and the default report interval; from the cancel's answer to the terminal event."""
    count, groups, step_s = lab.times(200, 600), 8, 0.3
    pools = (PoolPlan(groups=groups),)
    with (
        lab.cluster(pools=pools, progress_s=0.25, lease_s=5.0) as cluster,
        Load(cluster, seed=lab.seed) as load,
    ):
        load.call(_cancel_all(load, count=count, groups=groups, step_s=step_s))
        records = decide(cluster, load)
        lines = list(read(cluster.history.path))
    times, after = _cancel_times(lines), _steps_after(lines)
    if len(times) != count or any(record["state"] != "cancelled" for record in records):
        raise ViolatedError(f"{len(times)} of {count} tasks were cancelled")
    ordered = sorted(times)
    p99, steps = ordered[int(len(ordered) * 0.99)], sorted(after)[int(len(after) * 0.99)]
    return [
        Row(
            "Steps that end after a cancel was answered, p99",
            steps,
            "steps",
            target="≤ 1 step at p99",
            held=steps <= 1,
            note=f"n = {len(after)}, the most {max(after)}; steps of {step_s:g} s, longer than the interval of reports",
        ),
        Row(
            "Cancel's answer → its client sees `cancelled`, p99",
            round(p99, 3),
            "s",
            note=f"p50 {statistics.median(ordered):.3f}, max {ordered[-1]:.3f}; a step takes {step_s:g} s",
        ),
    ]


async def _cancel_all(load: Load, *, count: int, groups: int, step_s: float) -> None:
    gate = asyncio.Semaphore(groups)

    async def one(number: int) -> None:
        async with gate:
            what = Submission(
                at_s=0,
                number=number,
                pool="solo",
                tenant=load.tenants[0],
                input={"message": "c", "steps": 1000, "step_s": step_s},
            )
            task = await load._submit(what)
            if task is None:
                return
            reader = asyncio.create_task(load.read(task, load.tenants[0], cut=False, hops=False))
            await _begun(load, task)
            await asyncio.sleep(step_s * (number % 10) / 10)  # at any moment of a step
            await load.cancel(task)
            await reader

    await asyncio.gather(*(one(number) for number in range(count)))


async def _begun(load: Load, task: str) -> None:
    """Until it has told of a step."""
    client = load.readers[load.tenants[0]]
    async with aclosing(client.events(task)) as events:  # type: ignore[type-var]
        async for event in events:
            if event.type == "progress" and event.data.get("step"):
                return


def _cancel_times(lines: list[dict[str, Any]]) -> list[float]:
    asked = {line["task"]: line["t"] for line in lines if line["op"] == "cancel" and line["kind"] == "ok"}
    ended = {
        line["task"]: line["t"] for line in lines if line["op"] == "event" and line["type"] == "cancelled"
    }
    return [max(0.0, ended[task] - at) for task, at in asked.items() if task in ended]


def _steps_after(lines: list[dict[str, Any]]) -> list[int]:
    """For each cancel, the steps whose event the server wrote after the client had the cancel's answer."""
    wall = next(line["wall"] - line["t"] for line in lines if line["op"] == "run")
    asked = {
        line["task"]: (wall + line["t"]) * 1000
        for line in lines
        if line["op"] == "cancel" and line["kind"] == "ok"
    }
    return [
        sum(
            1
            for event in line["events"]
            if event["type"] == "progress" and int(event["id"].partition("-")[0]) > asked[line["task"]]
        )
        for line in lines
        if line["op"] == "stream" and line["task"] in asked
    ]


@scenario("idempotent", "one key, a hundred times at once, answers lost, gateways killed: one task")
def run_idempotent(lab: Lab) -> list[Row]:
    """A hundred at once for each key; the first answer is lost; a gateway dies after its script."""
    keys, parallel = lab.times(5, 40), 100
    with lab.cluster(pools=(PoolPlan(groups=2),)) as cluster, Load(cluster, seed=lab.seed) as load:
        for number in range(keys):
            cluster.arm(("after-submit", "before-submit")[number % 2], passes=number * 7 % 50)
            what = Submission(
                at_s=0,
                number=number,
                pool="solo",
                tenant=load.tenants[number % 3],
                input={"message": f"i{number}", "steps": 2},
                sends=parallel,
                lose_reply=True,
            )
            load.call(load._submit(what))
        cluster.disarm()
        killed = len(cluster.hits())
        records = decide(cluster, load)
        lost = sum(network.lost for network in load.networks.values())
    return [
        Row(
            "Tasks made by keys that were sent 100 times at once",
            len(records),
            "tasks",
            target=f"{keys}, one a key",
            held=len(records) == keys,
            note=f"{keys * parallel:,} submits, {lost} answers lost, {killed} gateways killed in the middle",
        )
    ]


@scenario("all-dead", "a task is handed in while nothing else lives, then the rest dies: it is done later")
def run_all_dead(lab: Lab) -> list[Row]:
    """All groups dead; tasks come; gateways and the server are killed; everything comes back."""
    rounds = lab.times(2, 8)
    with lab.cluster(pools=(PoolPlan(groups=3),)) as cluster, Load(cluster, seed=lab.seed) as load:
        for number in range(rounds):
            load.submit("solo", message="before", steps=200, step_s=0.05, readers=1)
            running(cluster, "solo", 1)
            for target in cluster.targets("leader"):
                cluster.hold(target.name.partition(".")[0])
                cluster.kill(target)
            for _ in range(5):
                load.submit("solo", message=f"dead{number}", steps=3, readers=1)
            for target in (*cluster.targets("gateway"), *cluster.targets("server")):
                cluster.hold(target.name)
                cluster.kill(target)
            time.sleep(0.5)
            cluster.release()
            cluster.wait_ready()
            load.settle_down(60)
        records = decide(cluster, load)
        killed = sum(n for name, n in cluster.history.counts.items() if name.startswith("fault.kill-"))
    done = sum(1 for record in records if record["state"] == "succeeded")
    return [
        Row(
            "Tasks handed in while every group was dead, done in the end",
            done,
            "tasks",
            target=f"all {len(records)}",
            held=done == len(records),
            note=f"{killed} kills: every group, then every gateway, then the server",
        )
    ]
