"""Scenarios of serving under pressure. Full, slow and frozen groups stay in use, and streams that break off never look
complete. While processes are killed, preempted and frozen in random order, no request fails before its answer begins.

A frozen leader keeps its group only if it thaws before its lease expires. When a leader freezes, up to two seconds of
its lease may already be over: up to one second has passed since the last refresh of the group's record, and that
refresh read a clock that moves only at ticks, about one second apart. So the scenarios that freeze leaders use leases
of 8 s, and freeze a leader for 1.5 s.
"""

from __future__ import annotations

import random
import time

from verification.faults.scenario_catalogue import ScenarioContext, ViolatedError, scenario
from verification.faults.serving.trial import ServingTrial, decide, failed_row, trial
from verification.faults.wish import Wish
from verification.results import Row

LEASE_S = 8.0
FREEZE_S = 1.5
SERVER_APART_S = 8.0
"""The least time between two kills of the Redis server. After an outage, leases have a grace period of 2 s. A second
outage within the grace period does not extend it, so a lease could expire too early."""


def _slow(rng: random.Random) -> Wish:
    """Answers that keep a group of small capacity full. One in fifty takes 2 s."""
    if rng.random() < 0.02:
        return Wish(latency_s=2.0)
    return Wish(latency_s=rng.uniform(0.01, 0.06), parts=rng.choice((0, 0, 3)), part_s=0.01)


@scenario("busy", "groups are full, slow, or frozen for a moment: all groups stay in use, and nothing fails")
def run_busy(context: ScenarioContext) -> list[Row]:
    """Send four times as many requests at once as the groups can hold, and freeze one leader after the other."""
    freezes, wanted = context.repeats(5, 40), context.repeats(1500, 10_000)
    with trial(context, clients=48, wish=_slow, pool={"capacity": 4}, lease_s=LEASE_S) as run:
        run.cluster.history.note("expect", kind="stay")
        for number in range(freezes):
            target = run.targets("leader")[number % 3]
            run.cluster.freeze(target)
            time.sleep(FREEZE_S)
            run.cluster.thaw(target)
            run.load.wait_for(wanted // (freezes * 2))
        run.load.wait_for(max(0, wanted - run.load.finished))
        seen = decide(run)
    return [
        failed_row(
            "Full and frozen groups",
            seen,
            faults=f"48 clients for 12 places, {freezes} groups frozen for {FREEZE_S:g} s of a lease of {LEASE_S:g} s",
            wanted=wanted,
        )
    ]


def _streams(rng: random.Random) -> Wish:
    """Answers that stream for half a second, in small parts or in parts larger than all buffers. One in five has
    one part and a ``Content-Length`` instead."""
    if rng.random() < 0.2:
        return Wish(latency_s=0.1, size=2_000_000)
    parts = rng.randint(5, 25)
    return Wish(parts=parts, part_s=0.5 / parts, size=rng.choice((60, 60, 100_000)))


@scenario(
    "streams", "groups and gateways are killed in the middle of streams: no cut-off answer looks complete"
)
def run_streams(context: ScenarioContext) -> list[Row]:
    """Kill leaders and gateways while nearly every request is in the middle of its answer."""
    kills, wanted = context.repeats(14, 100), context.repeats(1000, 8000)
    with trial(context, clients=24, wish=_streams, pool={"capacity": 24}) as run:
        for number in range(kills):
            kind = "gateway" if number % 3 == 2 else "leader"
            target = run.targets(kind)[0]
            run.cluster.kill(target)
            run.wait_replaced(target)
            run.load.wait_for(wanted // (kills * 2))
        run.load.wait_for(max(0, wanted - run.load.finished))
        faults = f"{run.count('kill-leader')} leaders and {run.count('kill-gateway')} gateways killed"
        seen = decide(run)
    cut = sum(send.kind == "cut" for request in seen.requests.values() for send in request.sends)
    if cut < kills:
        raise ViolatedError(f"only {cut} answers were cut off by {kills} kills, so the run shows nothing")
    return [
        failed_row("Streams cut off", seen, faults=faults, wanted=wanted),
        Row(
            "Answers that were cut off and looked complete, or had wrong bytes",
            0,
            "answers",
            target="0",
            held=True,
            note=f"{cut} answers were cut off",
        ),
    ]


@scenario(
    "mixed-serving",
    "kills, preemptions and freezes in an order that the seed determines, in a pool of groups of two ranks",
)
def run_mixed(context: ScenarioContext) -> list[Row]:
    """Inject the kills, preemptions and freezes that the seed determines, one after the other."""
    faults, wanted = context.repeats(16, 150), context.repeats(1000, 8000)
    rng = random.Random(context.seed)
    with trial(context, groups=3, ranks=2, lease_s=LEASE_S) as run:
        server_fault_at = -SERVER_APART_S
        for _ in range(faults):
            kinds = ["leader"] * 4 + ["follower"] * 3 + ["gateway"] * 3
            if time.monotonic() - server_fault_at > SERVER_APART_S:
                kinds += ["server"] * 3
            kind = rng.choice(kinds)
            _inject(run, kind, rng)
            if kind == "server":
                server_fault_at = time.monotonic()
            run.load.wait_for(wanted // (faults * 2))
        run.load.wait_for(max(0, wanted - run.load.finished))
        injected = (
            "kill-leader",
            "kill-follower",
            "kill-gateway",
            "kill-server",
            "preempt-leader",
            "freeze-leader",
        )
        counts = ", ".join(f"{run.count(kind)} × {kind}" for kind in injected)
        seen = decide(run)
    return [failed_row("Kills, preemptions and freezes in random order", seen, faults=counts, wanted=wanted)]


def _inject(run: ServingTrial, kind: str, rng: random.Random) -> None:
    targets = run.targets(kind)
    if not targets:
        return
    target = rng.choice(targets)
    if kind == "leader" and rng.random() < 0.5:
        if rng.random() < 0.5:
            run.cluster.preempt(target)
        else:
            run.cluster.freeze(target)
            time.sleep(FREEZE_S)
            run.cluster.thaw(target)
            return
    else:
        run.cluster.kill(target, down_s=rng.choice((0.0, 0.5, 2.0)))
    if kind != "leader" or rng.random() < 0.7:
        run.wait_replaced(target)
