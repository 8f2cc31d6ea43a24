"""The schedule of a run: all calls of clients and all faults, with their times. The functions are pure.

The same options and the same seed give the same schedule: the same tasks, inputs, keys, cancels, readers and faults, at
the same times. But two runs of one schedule may differ, because the operating system interleaves processes differently:
a fault may hit another process or another step, and two calls may arrive in the other order.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from verification.faults.failpoints import FOLLOWER, GATEWAY, LEADER
from verification.faults.options import PoolOptions

TENANTS = ("ada", "bob", "cyd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A task to submit, and what else clients do with it."""

    at_s: float
    number: int
    pool: str
    tenant: str
    input: dict[str, Any]
    max_strikes: int = 12
    run_within_s: float | None = None
    start_within_s: float | None = None
    priority: str = "normal"
    sends: int = 1
    """How many submits with the same idempotency key are sent at the same time."""
    lose_reply: bool = False
    """Whether the response to the first submit is lost."""
    readers: int = 1
    """How many clients follow the events of the task."""
    cancel_after_s: float | None = None

    @property
    def key(self) -> str:
        """The idempotency key of the task. The metadata of the task contains this key too."""
        return f"key-{self.number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One fault."""

    at_s: float
    action: str
    """``kill``, ``freeze``, ``preempt`` or ``arm``."""
    target: str
    """A kind of process; for ``arm``, a failpoint."""
    pick: float = 0.0
    """Which process of this kind the fault hits, of those that it may hit at that time: 0 is the first, 1 the last."""
    for_s: float = 0.0
    """How long a killed server stays down, or a frozen process stays frozen."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The schedule of a run."""

    seed: int
    seconds: float
    submissions: tuple[Submission, ...]
    faults: tuple[Fault, ...]


def submissions(
    *, seed: int, seconds: float, rate: float, pools: Sequence[PoolOptions]
) -> tuple[Submission, ...]:
    """Draw the tasks of ``seconds`` seconds, on average ``rate`` per second. Pools with more groups get more tasks."""
    draw = random.Random(f"{seed}/tasks")
    weights = [pool.groups for pool in pools]
    planned: list[Submission] = []
    at = 0.0
    while (at := at + draw.expovariate(rate)) < seconds:
        pool = draw.choices(list(pools), weights)[0]
        planned.append(_submission(draw, at, len(planned), pool))
    return tuple(planned)


def _submission(draw: random.Random, at: float, number: int, pool: PoolOptions) -> Submission:
    steps = draw.randint(2, 24)
    message = f"m{draw.randint(0, 9)}"
    task: dict[str, Any] = {
        "message": message,
        "steps": steps,
        "step_s": draw.choice((0.0, 0.01, 0.02, 0.04)),
    }
    if pool.ranks > 1:
        task["all_ranks"] = True
    strikes, chance = 12, draw.random()
    if chance < 0.05:
        task |= {"fail_at": draw.randint(1, steps), "fail_attempts": 1}
    elif chance < 0.08:
        task |= {"fail_at": draw.randint(1, steps), "fail_kind": "permanent"}
    elif chance < 0.11:
        task |= {"fail_at": draw.randint(1, steps)}
        strikes = draw.randint(1, 2)
    if draw.random() < 0.15:
        task["artifact_bytes"] = draw.choice((1, 70_000, 5_000_000))
    if draw.random() < 0.1:
        task["preview"] = True
    return Submission(
        at_s=at,
        number=number,
        pool=pool.name,
        tenant=draw.choice(TENANTS),
        input=task,
        max_strikes=strikes,
        run_within_s=draw.uniform(1, 6) if draw.random() < 0.04 else None,
        start_within_s=draw.uniform(0.5, 3) if draw.random() < 0.04 else None,
        priority=draw.choice(("low", "normal", "normal", "high")),
        sends=draw.choice((1, 1, 1, 2, 3)),
        lose_reply=draw.random() < 0.15,
        readers=draw.choice((0, 1, 1, 1, 2)),
        cancel_after_s=draw.uniform(0, 2.5) if draw.random() < 0.12 else None,
    )


def faults(
    *,
    seed: int,
    seconds: float,
    count: int,
    pools: Sequence[PoolOptions],
    lease_s: float,
    watchdogs: bool = False,
) -> tuple[Fault, ...]:
    """Draw ``count`` faults, each a kill or an armed failpoint, and also some freezes and preemptions of leaders.
    All times are uniformly random within ``seconds``."""
    draw = random.Random(f"{seed}/faults")
    failpoints = [*LEADER, *GATEWAY]
    deaths = {"leader": 46, "gateway": 14, "server": 4, "failpoint": 24}
    if any(pool.ranks > 1 for pool in pools):
        deaths["follower"] = 12
        failpoints += list(FOLLOWER)
    if watchdogs:
        deaths["watchdog"] = 8
    planned: list[Fault] = []
    for _ in range(count):
        at, pick = draw.uniform(0, seconds), draw.random()
        target = draw.choices(list(deaths), list(deaths.values()))[0]
        if target == "failpoint":
            planned.append(Fault(at_s=at, action="arm", target=draw.choice(failpoints)))
        else:
            down = draw.choice((0.0, 0.0, 0.5, 2 * lease_s)) if target == "server" else 0.0
            planned.append(Fault(at_s=at, action="kill", target=target, pick=pick, for_s=down))
    for _ in range(max(1, count // 15)):
        planned.append(
            Fault(
                at_s=draw.uniform(0, seconds),
                action="freeze",
                target="leader",
                pick=draw.random(),
                for_s=2 * lease_s,
            )
        )
        planned.append(
            Fault(at_s=draw.uniform(0, seconds), action="preempt", target="leader", pick=draw.random())
        )
    return tuple(sorted(planned, key=lambda fault: fault.at_s))


def schedule(
    *,
    seed: int,
    seconds: float,
    rate: float,
    deaths: int,
    pools: Sequence[PoolOptions],
    lease_s: float,
    watchdogs: bool = False,
) -> Schedule:
    """The schedule of a whole run."""
    return Schedule(
        seed=seed,
        seconds=seconds,
        submissions=submissions(seed=seed, seconds=seconds, rate=rate, pools=pools),
        faults=faults(
            seed=seed, seconds=seconds, count=deaths, pools=pools, lease_s=lease_s, watchdogs=watchdogs
        ),
    )
