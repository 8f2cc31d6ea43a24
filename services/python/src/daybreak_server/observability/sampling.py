"""Decides for which requests a gateway begins a trace, among those that come without a ``traceparent``.

A random share of these requests is selected, by default all. Only a limited number of the selected requests per second
begins a trace. So by default, each of these requests begins a trace while few of them arrive. Of thousands of requests
per second, only a few begin one. The limit is one token bucket for all pools. The bucket holds as many tokens as one
second allows, but at least one.
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
    :param per_s: How many selected requests per second may begin a trace, above 0.
    """

    def __init__(self, ratio: float, per_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._ratio = ratio
        self._interval_s = 1 / per_s
        most = max(1.0, per_s)  # a limit of 0.1 per second still allows one trace after ten seconds
        self._burst_s = (most - 1) / per_s + _ROUNDING_S
        self._clock = clock
        self._due = clock()
        """The time at which the bucket is full again, if no further trace begins. The bucket is kept as two timestamps
        (as in ATM's generic cell rate algorithm), so that a request beyond the limit costs one comparison."""
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
