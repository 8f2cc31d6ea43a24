"""Decides which traces a gateway begins for requests that come without a ``traceparent``.

A random share of these requests is selected, by default all. Of these, only a limited number per second begins a trace.
So by default, everything has a trace while little arrives, and thousands of short tasks per second cost no more than a
few traces. The limit is a token bucket that holds what one second allows, but at least one, for all pools together.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

_ROUNDING_S = 1e-6
"""Larger than the rounding error of a sum of times, and smaller than any interval that matters."""


class Sampler:
    """Selects requests. Two threads that call it at the same moment may together exceed the limit by one.

    :param ratio: The share of the requests that is selected, from 0 to 1.
    :param per_s: How many of them per second may begin a trace, above 0.
    """

    def __init__(self, ratio: float, per_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ratio = ratio
        self._interval_s = 1 / per_s
        most = max(1.0, per_s)  # a limit of 0.1 still allows one after ten seconds
        self._burst_s = (most - 1) / per_s + _ROUNDING_S
        self._clock = clock
        self._due = clock()
        """When the bucket would be full again. The bucket is kept as two timestamps (as in ATM's generic cell rate
        algorithm), because a request that is not sampled then costs one comparison."""
        self._next = self._due - self._burst_s
        """No request is sampled before this time."""

    def draw(self) -> bool:
        """Whether the next request is sampled."""
        now = self._clock()
        if now < self._next or (self._ratio < 1 and random.random() >= self._ratio):
            return False
        self._due = max(self._due, now) + self._interval_s
        self._next = self._due - self._burst_s
        return True
