"""Promises to clients: streams without gaps, quick cancellation, one task per key, no accepted task lost."""

from __future__ import annotations

import asyncio
import statistics
import time
from contextlib import aclosing
from typing import Any

from verification.faults.history import read
from verification.faults.load import Load
from verification.faults.options import PoolOptions
from verification.faults.scenario_catalogue import ScenarioContext, ViolatedError, scenario
from verification.faults.scenarios.leases import decide, wait_running
from verification.faults.schedule import Submission
from verification.results import Row


@scenario(
    "cuts", "streams are cut a thousand times, and gateways are killed: no event is missing or repeated"
)
def run_cuts(context: ScenarioContext) -> list[Row]:
    """Follow long tasks with many readers, and cut their streams.

    At each chunk, the stream is cut with a probability of 25 %. Half of the cuts are before the chunk, and half
    are in its middle.
    """
    wanted = context.repeats(1000, 5000)
    with (
        context.cluster(pools=(PoolOptions(groups=4),)) as cluster,
        Load(cluster, seed=context.seed, cut=0.25) as load,
    ):
        network = load.networks[load.tenants[0]]
        number, kills, started = 0, 0, time.monotonic()
        while network.cuts < wanted:
            for _ in range(4):
                number += 1
                task = load.submit("solo", message=f"c{number}", steps=100, step_s=0.03)
                for _ in range(8):
                    load.spawn(load.read(task, load.tenants[0]))
            load.settle_down(60)
            gateways = cluster.targets("gateway")
            cluster.kill(gateways[kills % len(gateways)])
            kills += 1
            load.wait_clients(60)
            if network.cuts < wanted and time.monotonic() - started > 600:
                raise ViolatedError(f"only {network.cuts} of {wanted} cuts in ten minutes")
        decide(cluster, load)
        events, readers = cluster.history.counts["event.saw"], cluster.history.counts["reader.end"]
        cuts = network.cuts
    return [
        Row(
            "Events missing or repeated in streams that are cut",
            0,
            "events",
            target="0 in 1,000 cuts",
            held=cuts >= 1000,
            note=f"{cuts:,} cuts in {readers} streams, {events:,} events, {kills} gateways killed",
        )
    ]


@scenario("cancel", "measures how long a group takes to stop after a cancel", alone=True)
def run_cancel(context: ScenarioContext) -> list[Row]:
    """Cancel tasks with steps of 0.3 s. Measure the time from the cancel's response to the terminal event."""
    count, groups, step_s = context.repeats(200, 600), 8, 0.3
    pools = (PoolOptions(groups=groups),)
    with (
        context.cluster(pools=pools, progress_s=0.25, lease_s=5.0) as cluster,
        Load(cluster, seed=context.seed) as load,
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
            "Steps that a task still completes after the response to its cancel, p99",
            steps,
            "steps",
            target="≤ 1 step at p99",
            held=steps <= 1,
            note=f"n = {len(after)}, max {max(after)}; a step takes {step_s:g} s, longer than the interval between "
            "reports",
        ),
        Row(
            "Time from the response to a cancel until the client sees `cancelled`, p99",
            round(p99, 3),
            "s",
            note=f"p50 {statistics.median(ordered):.3f} s, max {ordered[-1]:.3f} s; a step takes {step_s:g} s",
        ),
    ]


async def _cancel_all(load: Load, *, count: int, groups: int, step_s: float) -> None:
    free_groups = asyncio.Semaphore(groups)

    async def cancel_one(number: int) -> None:
        async with free_groups:
            submission = Submission(
                at_s=0,
                number=number,
                pool="solo",
                tenant=load.tenants[0],
                input={"message": "c", "steps": 1000, "step_s": step_s},
            )
            task = await load.submit_async(submission)
            if task is None:
                return
            reader = asyncio.create_task(load.read(task, load.tenants[0], cut=False, hops=False))
            await _wait_for_step(load, task)
            await asyncio.sleep(step_s * (number % 10) / 10)  # at different points of a step
            await load.cancel(task)
            await reader

    await asyncio.gather(*(cancel_one(number) for number in range(count)))


async def _wait_for_step(load: Load, task: str) -> None:
    """Wait until the task has reported a step."""
    client = load.steady_clients[load.tenants[0]]
    async with aclosing(client.events(task)) as events:  # type: ignore[type-var]
        async for event in events:
            if event.type == "progress" and event.data.get("step"):
                return


def _cancel_times(lines: list[dict[str, Any]]) -> list[float]:
    answered = {line["task"]: line["t"] for line in lines if line["op"] == "cancel" and line["kind"] == "ok"}
    ended = {
        line["task"]: line["t"] for line in lines if line["op"] == "event" and line["type"] == "cancelled"
    }
    return [max(0.0, ended[task] - at) for task, at in answered.items() if task in ended]


def _steps_after(lines: list[dict[str, Any]]) -> list[int]:
    """For each cancel, the number of step events that the server wrote after the client had the response."""
    wall = next(line["wall"] - line["t"] for line in lines if line["op"] == "run")
    answered_ms = {
        line["task"]: (wall + line["t"]) * 1000
        for line in lines
        if line["op"] == "cancel" and line["kind"] == "ok"
    }
    return [
        sum(
            1
            for event in line["events"]
            if event["type"] == "progress" and int(event["id"].partition("-")[0]) > answered_ms[line["task"]]
        )
        for line in lines
        if line["op"] == "stream" and line["task"] in answered_ms
    ]


@scenario(
    "idempotent", "a hundred concurrent submits with one key, lost responses, killed gateways: one task"
)
def run_idempotent(context: ScenarioContext) -> list[Row]:
    """Send a hundred submits at once for each key.

    For each key, lose one response, and kill a gateway just before or after it runs the submit script.
    """
    keys, parallel = context.repeats(5, 40), 100
    with context.cluster(pools=(PoolOptions(groups=2),)) as cluster, Load(cluster, seed=context.seed) as load:
        for number in range(keys):
            cluster.arm(("after-submit", "before-submit")[number % 2], passes=number * 7 % 50)
            submission = Submission(
                at_s=0,
                number=number,
                pool="solo",
                tenant=load.tenants[number % 3],
                input={"message": f"i{number}", "steps": 2},
                sends=parallel,
                lose_reply=True,
            )
            load.call(load.submit_async(submission))
        cluster.disarm()
        killed = len(cluster.hits())
        records = decide(cluster, load)
        lost_replies = sum(network.lost for network in load.networks.values())
    return [
        Row(
            "Tasks created when each idempotency key is sent 100 times at once",
            len(records),
            "tasks",
            target=f"{keys}, one per key",
            held=len(records) == keys,
            note=f"{keys * parallel:,} submits, {lost_replies} responses lost, {killed} gateways killed just before or "
            f"after the submit script",
        )
    ]


@scenario("all-dead", "tasks submitted while all groups are dead survive the death of everything else")
def run_all_dead(context: ScenarioContext) -> list[Row]:
    """Kill all groups, submit tasks, kill the gateways and the server, then restart everything."""
    rounds, submitted = context.repeats(2, 8), set[str]()
    with context.cluster(pools=(PoolOptions(groups=3),)) as cluster, Load(cluster, seed=context.seed) as load:
        for number in range(rounds):
            load.submit("solo", message="before", steps=200, step_s=0.05, readers=1)
            wait_running(cluster, "solo", 1)
            for target in cluster.targets("leader"):
                cluster.hold(target.name.partition(".")[0])
                cluster.kill(target)
            for _ in range(5):
                submitted.add(load.submit("solo", message=f"dead{number}", steps=3, readers=1))
            for target in (*cluster.targets("gateway"), *cluster.targets("server")):
                cluster.hold(target.name)
                cluster.kill(target)
            time.sleep(0.5)
            cluster.release()
            cluster.wait_ready()
            load.settle_down(60)
        records = decide(cluster, load)
        killed = sum(n for name, n in cluster.history.counts.items() if name.startswith("fault.kill-"))
    succeeded = sum(record["id"] in submitted and record["state"] == "succeeded" for record in records)
    return [
        Row(
            "Tasks that were submitted while every group was dead, and later succeeded",
            succeeded,
            "tasks",
            target=f"all {len(submitted)}",
            held=succeeded == len(submitted),
            note=f"{killed} kills: every group, then every gateway, then the server",
        )
    ]
