"""The rows of the simulation: the check against measurements, the load and lag of a shard, and the limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from verification.benchmarks.shard_simulation.assumptions import (
    DAY_S,
    Assumptions,
    fan_out_bytes_s,
    load,
    memory_bytes,
    pools_by_node,
)
from verification.benchmarks.shard_simulation.check import predicted_handoff_s, predicted_tasks_s
from verification.benchmarks.shard_simulation.costs import Costs, shares
from verification.benchmarks.shard_simulation.shard import ShardResult
from verification.results import Report, Row

ABOUT = (
    "The load is 100,000 tasks/s of 80 ms on 10,000 groups, with 1,000,000 followed tasks. Each pool is one shard of a "
    "Redis Cluster. The cost of each operation was measured on one machine (`queue.json`). The number of streams per "
    "gateway (5,000) and the size of an event are assumptions. *Overloaded* means that tasks arrive faster than the "
    "shard's core can handle them, so the number of waiting tasks grows until the simulation ends. A *wasted wake* is "
    "a wake of an idle leader that then finds no task."
)
Runs = Mapping[str, Sequence[tuple[int, ShardResult]]]


def report(runs: Runs, *, costs: Costs, source: Report, seed: int, promise_s: float) -> Report:
    """All rows."""
    about = {"costs measured": f"{source.date} at {source.machine.get('commit', '?')}"}
    new_report = Report("shards", title="Past one machine", about=ABOUT, seed=seed, extra=about)
    rows = [*_check(costs), *_shard(costs, runs, promise_s), *_lags(runs, promise_s), *_limits(costs)]
    for row in rows:
        new_report.add(row)
    return new_report


def _check(costs: Costs) -> list[Row]:
    tasks, handoff = predicted_tasks_s(costs), predicted_handoff_s(costs)
    return [
        Row(
            "Check: no-op tasks on one shard, predicted rate", tasks, "tasks/s", costs.tasks_s, "measured",
            note="two runs measured the clients' CPU time: one only submits, the other only settles. From both times, "
            "the simulation predicts the rate of a run that does both",
        ),
        Row(
            "Check: enqueue → claim, predicted delay", handoff * 1e3, "ms", costs.handoff * 1e3, "measured",
            note="two bare RPUSH → BLPOP delays plus the scripts; the clients' own time is not included",
        ),
    ]  # fmt: skip


def _shard(costs: Costs, runs: Runs, promise_s: float) -> list[Row]:
    """How many shards meet the target, and each operation's share of the core of such a shard."""
    name, results = next(iter(runs.items()))
    enough = _enough(results, promise_s)
    if enough is None:
        return [Row(f"Shards needed: {name}", math.nan, "shards", note="more than were simulated")]
    assumed = Assumptions(shards=enough)
    rows = [
        Row(
            "Shards needed for 100,000 tasks/s with p99 ≤ 10 ms and a core below 90 %", enough, "shards",
            note=f"{assumed.tasks_a_shard:,.0f} tasks/s and {assumed.groups_a_shard:,.0f} groups per shard; "
            f"{assumed.gateways} gateways",
        )
    ]  # fmt: skip
    for operation, share in shares(load(assumed, costs)):
        if share >= 0.0005:
            rows.append(Row(f"Share of a shard's core, {enough} shards: {operation}", 100 * share, "%"))
    return rows


def _enough(results: Sequence[tuple[int, ShardResult]], promise_s: float) -> int | None:
    return next(
        (number for number, result in results if result.lag(0.99) <= promise_s and result.used < 0.9), None
    )


def _lags(runs: Runs, promise_s: float) -> list[Row]:
    rows = []
    for name, results in runs.items():
        for number, result in results:
            full = result.used >= 1 or result.lag(0.99) > 1
            tasks = Assumptions(shards=number).tasks_a_shard
            note = f"core busy {100 * min(result.used, 9.99):.0f} %; median {result.lag(0.5) * 1e3:.2f} ms"
            note += f", p99.9 {result.lag(0.999) * 1e3:.1f} ms; wasted wakes {_wasted_share(result):.0f} %"
            if full:
                note = f"overloaded: {result.unstarted:,} tasks waited at the end"
            lag = result.lag(0.99) * 1e3
            rows.append(
                Row(
                    f"Submit → start p99, {number} shards of {tasks:,.0f} tasks/s: {name}", lag, "ms",
                    target="≤ 10 ms", held=lag <= promise_s * 1e3 and not full, note=note,
                )
            )  # fmt: skip
    return rows


def _wasted_share(result: ShardResult) -> float:
    return 100 * result.wasted / result.wakes if result.wakes else 0.0


def _limits(costs: Costs) -> list[Row]:
    assumed = Assumptions()
    one_pool = 1 / (costs.submit + costs.settle)
    everywhere = replace(assumed, follow_all=True)
    waiting, ended = memory_bytes(assumed, costs)
    day, hour = (
        memory_bytes(replace(assumed, retention_s=retention_s), costs)[1] for retention_s in (DAY_S, 3600.0)
    )
    by_node = pools_by_node(assumed.shards, assumed.shards)
    return [
        Row(
            "Largest rate of one pool: submit, settle and claim on one core", one_pool, "tasks/s",
            note="without clients that follow tasks",
        ),
        Row(
            "Network traffic from a shard to the gateways, if every gateway follows every pool",
            fan_out_bytes_s(everywhere) * 8 / 1e9, "Gbit/s",
            note=f"{assumed.shards} shards; {assumed.events_a_shard:,.0f} events/s to "
            f"{everywhere.readers:.0f} gateways",
        ),
        Row(
            "Network traffic from a shard to the gateways, if clients are routed by pool",
            fan_out_bytes_s(assumed) * 8 / 1e9, "Gbit/s",
            note=f"{assumed.shards} shards; {assumed.events_a_shard:,.0f} events/s to {assumed.readers:.0f} gateways",
        ),
        Row("Memory of a shard for queued tasks, 1 M queued in all shards", waiting / 2**30, "GiB"),
        Row(
            "Memory of a shard for ended tasks, kept 7 days", ended / 2**30, "GiB", target="≤ 64 GiB",
            held=ended <= 64 * 2**30,
            note=f"{assumed.shards} shards; kept for a day {day / 2**30:,.0f} GiB, for an hour {hour / 2**30:,.1f} GiB",
        ),
        Row(
            "Age of the oldest event in a shard's `events` stream", 1e6 / assumed.events_a_shard, "s",
            note=f"{assumed.shards} shards; the stream keeps about a million events, and a relay that reads nothing "
            "for longer than this age misses events",
        ),
        Row(
            f"Largest number of pools on one node, {assumed.shards} pools on {assumed.shards} nodes "
            "with equal slot ranges",
            max(by_node.values()), "pools",
            target="1", held=max(by_node.values()) == 1,
            note=f"{assumed.shards - len(by_node)} nodes have no pool; assign slots by pool instead",
        ),
    ]  # fmt: skip
