"""Decides which traces a gateway begins.

A share of the requests is drawn by chance. Of these, at most a number per second begins a trace. So every rare and long
task has a trace, and thousands of short ones per second cost no more than a few of them. The limit is a token bucket
that holds what one second allows.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable


class Sampler:
    """Draws requests. Two threads that draw at the same moment may together exceed the limit by one.

    :param ratio: The share of the requests that is drawn, from 0 to 1.
    :param per_s: The most that are drawn per second, above 0.
    """

    def __init__(self, ratio: float, per_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ratio = ratio
        self._per_s = per_s
        self._most = max(1.0, per_s)  # a limit of 0.1 still allows one after ten seconds
        self._clock = clock
        self._left = self._most
        self._counted_at = clock()

    def draw(self) -> bool:
        """Whether the next request is sampled."""
        if self._ratio < 1 and random.random() >= self._ratio:
            return False
        now = self._clock()
        left = min(self._most, self._left + (now - self._counted_at) * self._per_s)
        self._counted_at = now
        if left < 1:
            self._left = left
            return False
        self._left = left - 1
        return True
