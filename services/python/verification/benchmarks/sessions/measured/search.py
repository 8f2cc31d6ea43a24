"""Finds how many users a strategy sustains: raises the number until the strategy does not sustain it, then bisects."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from verification.benchmarks.sessions.outcome import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Steps:
    """How finely to search."""

    factor: float
    """The factor from one number of users to the next."""
    until: float
    """The search compares the highest sustained number with the lowest number that was not sustained. It ends when the
    second number is at most this many times the first, or is larger by only 1."""


FULL = Steps(factor=1.5, until=1.08)
QUICK = Steps(factor=2.0, until=2.0)


def climb(
    run: Callable[[int], Outcome], *, start: int, at_most: int, limit_s: float, steps: Steps
) -> list[tuple[int, Outcome]]:
    """Search. :returns: all runs, sorted by number of users.

    The search begins with ``start`` users. If the strategy does not sustain them, the search lowers the number.
    """
    tried: dict[int, Outcome] = {}

    def sustained(users: int) -> bool:
        tried[users] = run(users)
        return tried[users].sustains(limit_s)

    low, high = 0, min(start, at_most)
    while sustained(high) and high < at_most:
        low, high = high, min(at_most, math.ceil(high * steps.factor))
    if tried[high].sustains(limit_s):
        return sorted(tried.items())
    while low == 0 and high > 1:
        lower = math.floor(high / steps.factor)
        if sustained(lower):
            low = lower
        else:
            high = lower
    while high - low > 1 and high > low * steps.until:
        middle = (low + high) // 2
        if sustained(middle):
            low = middle
        else:
            high = middle
    return sorted(tried.items())


def most(tried: list[tuple[int, Outcome]], *, limit_s: float) -> tuple[int, Outcome | None]:
    """The last number of users before the first one that was not sustained, and the outcome of its run.

    ``tried`` is in the order of the numbers. Returns 0 and ``None`` if the first one was not sustained.
    """
    best: tuple[int, Outcome | None] = (0, None)
    for users, outcome in tried:
        if not outcome.sustains(limit_s):
            break
        best = users, outcome
    return best


def throughput_at(curve: list[tuple[int, Outcome]], lag_s: float) -> float:
    """The most tokens per second with a median lag of at most ``lag_s``. Between two runs, the value is interpolated.

    0 if the lag is longer even with the fewest users.
    """
    reached = 0.0
    before: tuple[float, float] | None = None
    for _, outcome in curve:
        lag, tokens_s = outcome.lag(0.5), outcome.tokens_s
        if lag > lag_s:
            if before is not None:
                share = (lag_s - before[0]) / (lag - before[0])
                reached = max(reached, before[1] + share * (tokens_s - before[1]))
            break
        before, reached = (lag, tokens_s), max(reached, tokens_s)
    return reached
