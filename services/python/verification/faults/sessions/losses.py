"""The promises about sessions must hold while groups, gateways and the store's server are lost."""

from __future__ import annotations

import asyncio

from daybreak_server import wiring
from daybreak_server.domain.ids import GroupId
from testkit.waiting import wait_until
from verification.faults.scenario_catalogue import ScenarioContext, ViolatedError, scenario
from verification.faults.sessions.checker import SessionsSeen, events_of, owners
from verification.faults.sessions.client import Script
from verification.faults.sessions.trial import (
    CHUNK_S,
    LEASE_S,
    POOL,
    READY_S,
    SessionTrial,
    gap_row,
    text_row,
    trial,
)
from verification.results import Row

TARGETS = ("de", "zh", "en")
SLOW = {"decode_ms": 40.0}
"""With this model, a group is nearly always in the middle of a turn."""


def scripts(count: int, seconds: float) -> list[Script]:
    """Clients in all languages. The audio of most clients does not end at the end of a block."""
    return [
        Script(number=number, seconds=seconds + 0.13 * (number % 5), target=TARGETS[number % 3])
        for number in range(count)
    ]


def _moved(seen: SessionsSeen, least: int) -> None:
    if owners(seen) < least:
        raise RuntimeError(f"sessions got another group only {owners(seen)} times, so little was tested")


@scenario("sessions-killed", "groups are killed in mid-turn: other groups continue their sessions")
def run_killed(context: ScenarioContext) -> list[Row]:
    """Kill the group with the most sessions, again and again."""
    kills = context.repeats(2, 20)
    with trial(context, scripts(8, 4.0 + 3.0 * kills), model=SLOW, watchdogs=True) as run:
        run.clients.wait_for_texts(3)
        for number in range(kills):
            run.cluster.kill(run.busiest())
            wait_until(lambda: len(run.targets("leader")) == 3, READY_S, "the killed group to be replaced")
            run.clients.wait_for_texts(6 + 4 * number)
        seen = run.decide()
    _moved(seen, kills)
    return [
        text_row("Groups killed", seen, faults=f"groups killed: {kills}"),
        gap_row("Groups killed", seen, limit_s=2 + CHUNK_S, bound=f"2 s + one chunk of {CHUNK_S:g} s"),
    ]


@scenario(
    "sessions-frozen",
    "a group is frozen for longer than its lease, and thaws: its late writes change nothing",
)
def run_frozen(context: ScenarioContext) -> list[Row]:
    """Freeze a group, and thaw it once it owns no session any more."""
    rounds = context.repeats(1, 10)
    with trial(context, scripts(6, 5.0 + 6.0 * rounds), model=SLOW, groups=2) as run:
        run.clients.wait_for_texts(3)
        for _ in range(rounds):
            target = run.busiest()
            frozen = run.groups()[target.pid][0]
            run.cluster.freeze(target)
            try:
                wait_until(
                    lambda group=frozen: _owned(run, group) == 0, READY_S, "the lease of a frozen group"
                )
            finally:
                run.cluster.thaw(target)
            wait_until(lambda: len(run.targets("leader")) == 2, READY_S, "two groups that work")
        seen = run.decide()
    _moved(seen, rounds)
    return [
        text_row("Groups frozen", seen, faults=f"groups frozen for longer than their leases: {rounds}"),
        gap_row(
            "Groups frozen",
            seen,
            limit_s=LEASE_S + 2 + CHUNK_S,
            bound=f"the lease + 2 s + one chunk of {CHUNK_S:g} s",
        ),
    ]


def _owned(run: SessionTrial, group: str) -> int:
    with run.cluster.client() as client:
        return int(client.scard(run.cluster.keys(POOL).of("group_sessions", group)))


@scenario("sessions-drained", "groups drain and are replaced: their sessions move before the groups leave")
def run_drained(context: ScenarioContext) -> list[Row]:
    """Drain the groups by SIGTERM, in turn. The first SIGTERM comes after a drain mark like that of the operator."""
    groups = context.repeats(2, 12)
    with trial(context, scripts(6, 4.0 + 2.0 * groups), model=SLOW, groups=2, drain_s=20.0) as run:
        run.clients.wait_for_texts(3)
        for number in range(groups):
            target = run.target("leader", f"{POOL}-{number % 2}.0")
            if number == 0:
                _drain(run, run.groups()[target.pid][0])
            run.cluster.preempt(target)
            wait_until(
                lambda pid=target.pid: not run.cluster.processes.alive(pid), READY_S, "a group to leave"
            )
            wait_until(lambda: len(run.targets("leader")) == 2, READY_S, "a new group")
        seen = run.decide()
    reasons = {data["reason"] for data in events_of(seen, "waiting")}
    if reasons - {"released"}:
        raise ViolatedError(f"sessions of groups that drained were lost, not handed over: {sorted(reasons)}")
    _moved(seen, 1)
    return [
        text_row("Groups drained", seen, faults=f"groups drained and replaced: {groups}"),
        gap_row("Groups drained", seen, limit_s=2 + CHUNK_S, bound=f"2 s + one chunk of {CHUNK_S:g} s"),
    ]


def _drain(run: SessionTrial, group: str) -> None:
    async def mark() -> None:
        store = wiring.build_store(run.cluster.settings)
        try:
            await store.drain(POOL, GroupId(group))
        finally:
            await store.close()

    asyncio.run(mark())
    wait_until(lambda: _owned(run, group) == 0, READY_S, f"the sessions of {group} to move")


@scenario("sessions-gateways", "gateways are killed: their clients continue at the other one")
def run_gateways(context: ScenarioContext) -> list[Row]:
    """Kill the gateways in turn. Clients connect to the other gateway with the id of their last event, and send audio
    from the position that this gateway names."""
    kills = context.repeats(2, 20)
    with trial(context, scripts(8, 4.0 + 2.5 * kills), groups=1) as run:
        for number in range(kills):
            run.clients.wait_for_texts(3 + 3 * number)
            run.cluster.kill(run.target("gateway", f"gateway-{number % 2}"), down_s=0.5)
            run.target("gateway", f"gateway-{number % 2}")
        seen = run.decide()
    again = sum(max(0, len(session.of("ready")) - 1) for session in seen.sessions.values())
    if again < kills:
        raise RuntimeError(f"clients had to connect again only {again} times, so little was tested")
    return [
        text_row(
            "Gateways killed", seen, faults=f"gateways killed: {kills}; clients that connected again: {again}"
        ),
        gap_row("Gateways killed", seen, limit_s=2 + CHUNK_S, bound=f"2 s + one chunk of {CHUNK_S:g} s"),
    ]


@scenario(
    "sessions-store", "the server of the store is killed and restarted: sessions continue when it is back"
)
def run_store(context: ScenarioContext) -> list[Row]:
    """Take the server down by SIGKILL for 0.5 s, then by SIGTERM for longer than a lease. With the fsync policy
    ``always``, all data that the server has acknowledged is on the disk."""
    rounds = context.repeats(1, 8)
    with trial(context, scripts(6, 4.0 + 7.0 * rounds), groups=2, fsync="always") as run:
        run.clients.wait_for_texts(2)
        for number in range(2 * rounds):
            target = run.target("server", "server")
            if number % 2:
                run.cluster.hold("server", for_s=LEASE_S + 1)
                run.cluster.preempt(target)
            else:
                run.cluster.kill(target, down_s=0.5)
            wait_until(
                lambda pid=target.pid: not run.cluster.processes.alive(pid), READY_S, "the server's end"
            )
            run.target("server", "server")
            run.clients.wait_for_texts(4 + 3 * number)
        seen = run.decide()
    return [
        text_row(
            "Store restarted",
            seen,
            faults=f"kills: {rounds}; stops for {LEASE_S + 1:g} s: {rounds}",
        )
    ]
