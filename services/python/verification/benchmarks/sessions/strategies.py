"""The strategies that the benchmark compares, and the devices and users with which it compares them."""

from __future__ import annotations

from dataclasses import dataclass

from daybreak_server.batching.iterations import IterationRules, Strategy
from verification.benchmarks.sessions.costs import FLAT, TINY_SPEECH, Costs
from verification.benchmarks.sessions.outcome import Outcome
from verification.benchmarks.sessions.simulation import Load, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A strategy: its name in the table, and one or more sets of rules. The table shows the result of the best set."""

    name: str
    rules: tuple[IterationRules, ...]


SINGLE = Contender(name="one turn at a time", rules=(IterationRules(strategy=Strategy.SINGLE),))
REQUEST = Contender(
    name="request-level, as `@serve.batch`",
    rules=tuple(
        IterationRules(strategy=Strategy.REQUEST, batch_timeout_s=timeout_s) for timeout_s in (0.0, 0.1, 0.2)
    ),
)
STRICT = Contender(name="by iterations, strictly prefill first", rules=(IterationRules(gather_size=1),))
MIXED = Contender(name="by iterations, mixed", rules=(IterationRules(strategy=Strategy.MIXED),))
CHUNKED = Contender(
    name="by iterations, mixed, chunked prefill",
    rules=tuple(
        IterationRules(strategy=Strategy.MIXED, max_batch_tokens=tokens) for tokens in (128, 48, 64, 96)
    ),
)
GATHER = Contender(name="by iterations, prefill gathers (default)", rules=(IterationRules(),))
ALL = (SINGLE, REQUEST, STRICT, MIXED, CHUNKED, GATHER)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A device, and the turns that its users speak."""

    name: str
    costs: Costs
    turn_s: float
    turn_blocks: int
    most_tokens: int
    users: tuple[int, ...]
    """The numbers of users for which the curves show the lag."""

    def run(self, users: int, rules: IterationRules, *, for_s: float, seed: int) -> Outcome:
        """Simulate ``users`` users."""
        load = Load(
            users=users,
            for_s=for_s,
            turn_s=self.turn_s,
            turn_blocks=self.turn_blocks,
            most_tokens=self.most_tokens,
            seed=seed,
        )
        return Run(load, self.costs, rules).run()


SCENES = (
    Scene(
        name="tiny speech model, one CPU core",
        costs=TINY_SPEECH,
        turn_s=0.48,
        turn_blocks=1,
        most_tokens=5,
        users=(4, 8, 16, 32, 48, 64, 96, 128, 160, 192, 224, 256, 288),
    ),
    Scene(
        name="device with flat costs",
        costs=FLAT,
        turn_s=0.96,
        turn_blocks=2,
        most_tokens=20,
        users=(1, 2, 4, 6, 8, 12, 16, 24, 32, 40, 48, 64, 80, 96, 112),
    ),
)
