"""The promises must hold while groups, gateways and the store's server are restarted or killed."""

from __future__ import annotations

import asyncio

from daybreak_server import wiring
from daybreak_server.domain.pools import GroupRecord, GroupState
from testkit.waiting import wait_until_async
from verification.faults.scenario_catalogue import ScenarioContext, ViolatedError, scenario
from verification.faults.serving.trial import POOL, READY_S, ServingTrial, decide, failed_row, trial
from verification.results import Row

OUTAGE_LEASE_S = 4.0
"""At most two seconds of an outage count towards a lease. So a lease of this length does not end before
its group can renew it after the outage."""


@scenario(
    "rolling", "all groups of a serving pool are drained and replaced, one after the other: nothing fails"
)
def run_rolling(context: ScenarioContext) -> list[Row]:
    """Replace each group several times. Every second replacement begins with a drain mark, as when the operator stops a
    group. The others begin with SIGTERM, as when a node is drained.
    """
    rounds, wanted = context.repeats(3, 12), context.repeats(2000, 10_000)
    with trial(context) as run:
        for number in range(rounds * 3):
            target = run.targets("leader")[number % 3]
            if number % 2:
                _drain(run, target.pid)
            run.cluster.preempt(target)
            run.wait_replaced(target)
            run.load.wait_for(wanted // (rounds * 6))
        run.load.wait_for(max(0, wanted - run.load.finished))
        seen = decide(run)
        cut = sum(send.kind == "cut" for request in seen.requests.values() for send in request.sends)
    if cut:
        raise ViolatedError(f"{cut} answers were cut off, although each group had the time to finish")
    return [
        failed_row("Rolling restart", seen, faults=f"{rounds * 3} groups drained and replaced", wanted=wanted)
    ]


def _drain(run: ServingTrial, pid: int) -> None:
    """Mark the group of this leader to drain, and wait until the group has no request, as the operator does."""

    async def drain() -> None:
        store = wiring.build_store(run.cluster.settings)

        async def record() -> GroupRecord:
            return next(group for group in (await store.pool(POOL)).groups if pid in group.pids)

        async def is_empty() -> bool:
            group = await record()
            empty = group.load is not None and not (group.load.in_flight or group.load.waiting)
            return empty and group.state is GroupState.DRAINING

        try:
            await store.drain(POOL, (await record()).id)
            await wait_until_async(is_empty, READY_S, f"the group of process {pid} to drain")
        finally:
            await store.close()

    asyncio.run(drain())


@scenario("leaders", "leaders of serving groups are killed under load: only begun answers are cut off")
def run_leaders(context: ScenarioContext) -> list[Row]:
    """Kill one leader after the other. After every fourth kill, do not wait until the leader is replaced."""
    kills, wanted = context.repeats(16, 120), context.repeats(2000, 10_000)
    with trial(context, groups=4) as run:
        for number in range(kills):
            target = run.targets("leader")[number % 2]
            run.cluster.kill(target)
            run.load.wait_for(wanted // (kills * 2))
            if number % 4 != 3:
                run.wait_replaced(target)
        run.load.wait_for(max(0, wanted - run.load.finished))
        killed = run.count("kill-leader")
        seen = decide(run)
    return [failed_row("Leaders killed", seen, faults=f"{killed} leaders killed", wanted=wanted)]


@scenario("gateways", "gateways are killed under load: clients that try the other gateway get answers")
def run_gateways(context: ScenarioContext) -> list[Row]:
    """Kill the gateways in turn, and then stop each of them once by SIGTERM."""
    kills, wanted = context.repeats(8, 60), context.repeats(1500, 10_000)
    with trial(context) as run:
        for number in range(kills + 2):
            target = run.targets("gateway")[number % 2]
            if number < kills:
                run.cluster.kill(target, down_s=0.5)
            else:
                run.cluster.preempt(target)
            run.load.wait_for(wanted // (kills * 2))
            run.wait_replaced(target)
        run.load.wait_for(max(0, wanted - run.load.finished))
        killed = run.count("kill-gateway")
        seen = decide(run)
    return [failed_row("Gateways killed", seen, faults=f"{killed} gateways killed, 2 stopped", wanted=wanted)]


@scenario("store", "the server of the store restarts or is killed under load: requests do not notice")
def run_store(context: ScenarioContext) -> list[Row]:
    """Alternately stop and kill the server. It is down for half a second in the first half of the rounds, and for the
    length of two leases in the second half."""
    rounds, wanted = context.repeats(2, 10), context.repeats(1500, 10_000)
    with trial(context, lease_s=OUTAGE_LEASE_S) as run:
        for number in range(rounds * 2):
            (target,) = run.targets("server")
            down_s = 0.5 if number < rounds else 2 * run.cluster.options.lease_s
            if number % 2:
                run.cluster.kill(target, down_s=down_s)
            else:
                run.cluster.hold("server", for_s=down_s)
                run.cluster.preempt(target)
            run.load.wait_for(wanted // (rounds * 4))
            run.wait_replaced(target)
            run.load.wait_for(wanted // (rounds * 4))
        run.load.wait_for(max(0, wanted - run.load.finished))
        killed, stopped = run.count("kill-server"), run.count("preempt-server")
        seen = decide(run)
    return [
        failed_row(
            "Store restarted",
            seen,
            faults=f"server stopped {stopped} times and killed {killed} times, at most for two leases",
            wanted=wanted,
        )
    ]
