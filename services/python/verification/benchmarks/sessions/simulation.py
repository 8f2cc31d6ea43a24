"""Simulates the scheduler with one device and with users who speak at normal speed.

Nothing sleeps. Time advances from one event to the next. An event is the arrival of audio or the end of a batch.
Everything random depends only on the seed, the user and the turn, so all strategies get the same speech.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from daybreak_server.batching.iterations import Batch, IterationRules, Scheduler, WaitUntil
from verification.benchmarks.sessions.costs import Costs
from verification.benchmarks.sessions.outcome import Outcome

BLOCK_TOKENS = 6
"""The scheduler counts a block of audio as this many tokens. The tiny speech model uses the same number."""
TOO_LATE_S = 20.0
"""If a turn is this late, the device is overloaded, and the run is stopped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """The users, and the duration of the run. Times are in seconds."""

    users: int
    for_s: float
    turn_s: float = 0.48
    turn_blocks: int = 1
    """How many blocks of audio a turn has. A turn can be divided only between blocks."""
    most_tokens: int = 5
    """A turn has from 0 to this many tokens, with equal probability."""
    seed: int = 1

    def speaker(self, user: int) -> tuple[float, Iterator[int]]:
        """When a user begins to speak, which is random, and how many tokens each turn of the user has."""
        draw = random.Random(f"{self.seed} {user}")
        return draw.random() * self.turn_s, (draw.randint(0, self.most_tokens) for _ in itertools.count())


class Run:
    """One run."""

    def __init__(
        self, load: Load, costs: Costs, rules: IterationRules, *, keep_records: bool = False
    ) -> None:
        self._load, self._costs = load, costs
        self._scheduler: Scheduler[int] = Scheduler(rules, block_tokens=BLOCK_TOKENS)
        self._keep_records = keep_records
        speakers = [load.speaker(user) for user in range(load.users)]
        self._tokens = [tokens for _, tokens in speakers]
        self._speech = [(starts + load.turn_s, user) for user, (starts, _) in enumerate(speakers)]
        heapq.heapify(self._speech)
        self._turns = [0] * load.users
        """The number of computed turns of each user."""
        self.ready: list[list[float]] = [[] for _ in range(load.users)]
        """When the audio of each turn of each user was complete."""
        self._left: dict[int, int] = {}
        """By user: how many tokens of the present turn remain."""
        self.outcome = Outcome(for_s=load.for_s)

    def run(self) -> Outcome:
        """Simulate until the end of the run, or until a turn is too late."""
        now = 0.0
        while now < self._load.for_s and not self.outcome.gave_up:
            self._listen(now)
            decision = self._scheduler.next(now)
            if isinstance(decision, Batch):
                now = self._compute(decision, now)
            elif isinstance(decision, WaitUntil):
                now = min(decision.at, self._speech[0][0])
            else:
                now = self._speech[0][0]
        return self.outcome

    def _listen(self, until: float) -> None:
        while self._speech[0][0] <= until:
            at, user = self._speech[0]
            heapq.heapreplace(self._speech, (at + self._load.turn_s, user))
            self.ready[user].append(at)
            self._scheduler.prefill_ready(user, at, seconds=self._load.turn_s, blocks=self._load.turn_blocks)

    def _compute(self, batch: Batch[int], now: float) -> float:
        seconds = self._costs.of(batch, turn_blocks=self._load.turn_blocks)
        end = now + seconds
        self._listen(end)
        written = 0
        for user in batch.sessions:
            if user in batch.unfinished:
                continue
            if user in batch.prefill:
                self._left[user] = next(self._tokens[user])
            if self._left[user]:
                self._left[user] -= 1
                written += 1
                self._scheduler.decode_ready(user, end)
            else:
                self._turn_is_over(user, end)
        record = self._scheduler.complete(batch, end, tokens=written)
        if self._keep_records:
            self.outcome.records.append(record)
        self.outcome.tokens += written
        self.outcome.busy_s += seconds
        self.outcome.sizes.append(record.size)
        return end

    def _turn_is_over(self, user: int, now: float) -> None:
        ready = self.ready[user][self._turns[user]]
        self._turns[user] += 1
        self.outcome.lags.append((ready, now - ready))
        self.outcome.gave_up = self.outcome.gave_up or now - ready > TOO_LATE_S


def most_users(
    simulate: Callable[[int], Outcome], *, limit_s: float, at_most: int = 1024
) -> tuple[int, Outcome | None]:
    """Find by bisection, to within 1 %, the largest number of users that the device sustains.

    :returns: this number and the outcome of its run; 0 and ``None`` if the device does not sustain even one user.
    """
    low, high, best = 0, 1, None
    while high <= at_most and (outcome := simulate(high)).sustains(limit_s):
        low, high, best = high, high * 2, outcome
    high = min(high, at_most + 1)
    while high - low > max(1, low // 100):
        middle = (low + high) // 2
        outcome = simulate(middle)
        if outcome.sustains(limit_s):
            low, best = middle, outcome
        else:
            high = middle
    return low, best
