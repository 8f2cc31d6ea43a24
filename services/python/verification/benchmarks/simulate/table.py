"""The rows of the simulation: the check against measurements, the load and lag of a shard, and the limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from verification.benchmarks.simulate.check import predicted_handoff_s, predicted_tasks_s
from verification.benchmarks.simulate.costs import Costs, shares
from verification.benchmarks.simulate.plan import (
    DAY_S,
    Plan,
    fan_out_bytes_s,
    load,
    memory_bytes,
    pools_by_node,
)
from verification.benchmarks.simulate.shard import ShardResult
from verification.results import Report, Row

ABOUT = (
    "100,000 tasks/s of 80 ms on 10,000 groups, 1,000,000 followed tasks, pools as the shards of a Redis Cluster. "
    "Costs of operations are measured on one machine (`queue.json`); a shard is simulated by discrete events; gateways "
    "(5,000 streams each) and event sizes are assumptions, named in `benchmarks/simulate/plan.py`. Nothing here was "
    "run at that size: the first rows show how exact the simulator is where it can be checked."
)
Runs = Mapping[str, Sequence[tuple[int, ShardResult]]]


def report(runs: Runs, *, costs: Costs, source: Report, seed: int, promise_s: float) -> Report:
    """All rows."""
    about = {"costs measured": f"{source.date} at {source.machine.get('commit', '?')}"}
    made = Report("simulate", title="Past one machine", about=ABOUT, seed=seed, extra=about)
    rows = [*_check(costs), *_shard(costs, runs, promise_s), *_lags(runs, promise_s), *_bends(costs)]
    for row in rows:
        made.add(row)
    return made


def _check(costs: Costs) -> list[Row]:
    tasks, handoff = predicted_tasks_s(costs), predicted_handoff_s(costs)
    return [
        Row(
            "Check: no-op tasks on one shard, predicted", tasks, "tasks/s", costs.tasks_s, "measured",
            note="clients fitted to submit alone and settle alone; both together is predicted",
        ),
        Row(
            "Check: enqueue → claimed, predicted", handoff * 1e3, "ms", costs.handoff * 1e3, "measured",
            note="two raw hand-offs and the scripts; what is missing is the clients' own time",
        ),
    ]  # fmt: skip


def _shard(costs: Costs, runs: Runs, promise_s: float) -> list[Row]:
    """The load of a shard by operation, with the fewest shards that meet the target."""
    name, found = next(iter(runs.items()))
    enough = _enough(found, promise_s)
    if enough is None:
        return [Row(f"Shards needed: {name}", math.nan, "shards", note="more than were simulated")]
    plan = Plan(shards=enough)
    rows = [
        Row(
            "Shards for 100 k tasks/s with p99 ≤ 10 ms", enough, "shards",
            note=f"{plan.tasks_a_shard:,.0f} tasks/s, {plan.groups_a_shard:,.0f} groups each; {plan.gateways} gateways",
        )
    ]  # fmt: skip
    for operation, share in shares(load(plan, costs)):
        if share >= 0.0005:
            rows.append(Row(f"Shard core taken by: {operation}", 100 * share, "%"))
    return rows


def _enough(found: Sequence[tuple[int, ShardResult]], promise_s: float) -> int | None:
    return next((number for number, seen in found if seen.lag(0.99) <= promise_s and seen.used < 0.9), None)


def _lags(runs: Runs, promise_s: float) -> list[Row]:
    rows = []
    for name, found in runs.items():
        for number, seen in found:
            full = seen.used >= 1 or seen.lag(0.99) > 1
            tasks = Plan(shards=number).tasks_a_shard
            note = f"core {100 * min(seen.used, 9.99):.0f} %; median {seen.lag(0.5) * 1e3:.2f} ms"
            note += f", p99.9 {seen.lag(0.999) * 1e3:.1f} ms; vain wakes {_vain(seen):.0f} %"
            if full:
                note = f"overloaded: the queue grows ({seen.left:,} waited at the end)"
            lag = seen.lag(0.99) * 1e3
            rows.append(
                Row(
                    f"Submit → start p99, {number} shards of {tasks:,.0f} tasks/s: {name}", lag, "ms",
                    target="≤ 10 ms", held=lag <= promise_s * 1e3 and not full, note=note,
                )
            )  # fmt: skip
    return rows


def _vain(seen: ShardResult) -> float:
    return 100 * seen.vain / seen.wakes if seen.wakes else 0.0


def _bends(costs: Costs) -> list[Row]:
    plan = Plan()
    one_pool = 1 / (costs.submit + costs.settle)
    everywhere = replace(plan, follow_all=True)
    waiting, ended = memory_bytes(plan, costs)
    day, hour = (memory_bytes(replace(plan, retention_s=kept), costs)[1] for kept in (DAY_S, 3600.0))
    by_node = pools_by_node(plan.shards, plan.shards)
    return [
        Row("One pool's end: submit, settle and claim on one core", one_pool, "tasks/s", note="without followers"),
        Row(
            "Events sent by a shard, every gateway follows every pool", fan_out_bytes_s(everywhere) * 8 / 1e9, "Gbit/s",
            note=f"{plan.events_a_shard:,.0f} events/s to {everywhere.readers:.0f} gateways, {plan.shards} shards",
        ),
        Row(
            "Events sent by a shard, subscribers routed by pool", fan_out_bytes_s(plan) * 8 / 1e9, "Gbit/s",
            note=f"to {plan.readers:.0f} gateways",
        ),
        Row("Memory of a shard: 1 M tasks queued in all", waiting / 2**30, "GiB"),
        Row(
            "Memory of a shard: ended tasks kept 7 days", ended / 2**30, "GiB", target="≤ 64 GiB",
            held=ended <= 64 * 2**30, note=f"kept a day {day / 2**30:,.0f} GiB, an hour {hour / 2**30:,.1f} GiB",
        ),
        Row(
            "Time that a shard's `events` stream reaches back", 1e6 / plan.events_a_shard, "s",
            note="about a million entries; a relay that is away for longer begins at the tail",
        ),
        Row(
            f"Most pools of {plan.shards} on one of {plan.shards} nodes, slots by hash", max(by_node.values()), "pools",
            target="1", held=max(by_node.values()) == 1,
            note=f"{plan.shards - len(by_node)} nodes have none: place slots by pool, not in equal ranges",
        ),
    ]  # fmt: skip
