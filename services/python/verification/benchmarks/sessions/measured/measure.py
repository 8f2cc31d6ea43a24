"""Measures the costs of steps, and then how many users each strategy sustains."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch

from daybreak_server.domain.sessions import SAMPLE_RATE
from daybreak_server.workloads.base import Group
from daybreak_server.workloads.speech.model import Speech
from verification.benchmarks.http.parts import raise_priority
from verification.benchmarks.sessions.costs import Costs
from verification.benchmarks.sessions.measured import search, steps
from verification.benchmarks.sessions.measured.paced import PacedRun
from verification.benchmarks.sessions.measured.search import Steps
from verification.benchmarks.sessions.measured.speakers import References, speakers
from verification.benchmarks.sessions.measured.table import Measured
from verification.benchmarks.sessions.outcome import Outcome
from verification.benchmarks.sessions.strategies import ALL, Contender
from verification.benchmarks.sessions.table import Found

CACHE_MB = 600.0
"""The size of the model's cache. The cache holds more sessions than one core can serve."""
START_BUSY = 0.6
"""A search begins with this share of the users whose turns, computed one at a time, would keep the device busy all
the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How long to measure."""

    for_s: float
    rounds: int
    """The costs of steps are measured for this many rounds, times the number of ``steps.SIZES``."""
    steps: Steps


FULL = Plan(for_s=12.0, rounds=6, steps=search.FULL)
QUICK = Plan(for_s=3.0, rounds=1, steps=search.QUICK)


def measure(plan: Plan, *, limit_s: float) -> Measured:
    """Measure all strategies, one after the other."""
    raise_priority()
    torch.set_num_threads(1)
    model = Speech()
    model.load(Group(options={"cache_mb": CACHE_MB}))
    model.warm_up()
    costs = steps.measure(model, rounds=plan.rounds * len(steps.SIZES))
    mixed = steps.measure_mixed(model, rounds=plan.rounds * len(steps.SIZES))
    bed = _Bed(model, plan, limit_s=limit_s)
    start = bed.start(costs)
    results = {contender: bed.found(contender, start) for contender in ALL}
    return Measured(
        results=results,
        costs=costs,
        mixed=mixed,
        turn_s=bed.turn_s,
        tokens_per_turn=bed.references.tokens_per_turn,
        for_s=plan.for_s,
        until=plan.steps.until,
        users=bed.users,
        differing=bed.differing,
    )


class _Bed:
    def __init__(self, model: Speech, plan: Plan, *, limit_s: float) -> None:
        self._model, self._plan, self._limit_s = model, plan, limit_s
        self.turn_s = model.shape.block_samples / SAMPLE_RATE
        self.references = References(model, for_s=plan.for_s)
        self.users = self.differing = 0

    def start(self, costs: Costs) -> int:
        """The number of users with which each search begins."""
        turn_s = costs.seconds(1, 0) + self.references.tokens_per_turn * costs.seconds(0, 1)
        return max(1, int(START_BUSY * self.turn_s / turn_s))

    def found(self, contender: Contender, start: int) -> Found:
        """How many users a strategy sustains. If the strategy has several ``rules``, only ``rules[0]`` is used."""
        tried = search.climb(
            lambda users: self._run(contender, users),
            start=start,
            at_most=self._model.shape.max_sessions,
            limit_s=self._limit_s,
            steps=self._plan.steps,
        )
        sessions, best = search.most(tried, limit_s=self._limit_s)
        curve = [(users, outcome) for users, outcome in tried if not outcome.grows]
        return Found(sessions=sessions, best=best, curve=curve, rules="")

    def _run(self, contender: Contender, users: int) -> Outcome:
        speaking = speakers(users, for_s=self._plan.for_s, turn_s=self.turn_s)
        run = PacedRun(
            self._model, contender.rules[0], speaking, for_s=self._plan.for_s, limit_s=self._limit_s
        )
        outcome = run.run()
        sustained = outcome.sustains(self._limit_s)
        if sustained:
            self.users += users
            self.differing += run.differing(self.references)
        print(
            f"{contender.name}: {users} users: {'sustained' if sustained else 'too many'}, "
            f"lag p50 {outcome.lag(0.5):.2f} s, p95 {outcome.lag(0.95):.2f} s, {outcome.tokens_s:.0f} tokens/s",
            file=sys.stderr,
            flush=True,
        )
        return outcome
