"""Resamples a stream to 16 kHz, piece by piece, with a polyphase filter.

The ratio of the output rate to the input rate is ``up / down``. Output sample ``n`` lies at input position
``n * down / up``. Its value is a weighted sum of the input samples around that position. The weights are values of
a windowed sinc. An output sample lies some distance after an input sample, and this distance has only ``up`` possible
values. Each of them is a *phase*, whose weights are computed once. The filter is symmetric, so it does not shift the
audio in time.

A resampler may begin at any position that is a multiple of ``down``. Its first output samples then lack the
input before that position. ``warm_up`` says how far before a given position a resampler must begin, so
that its output from this position on equals the output of a resampler that began at 0.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from operator import mul

from daybreak_server.domain.sessions import SAMPLE_RATE

_CROSSINGS = 10
"""How many zero crossings the sinc would have on each side if :data:`_CUTOFF` were 1. More crossings make the
transition band narrower, but the filter slower."""
_CUTOFF = 0.90
"""The cutoff of the filter, as a share of the band of the input or of the output, whichever is narrower."""
_KAISER_BETA = 7.0


@lru_cache(maxsize=16)
def _weights(up: int, down: int) -> tuple[tuple[float, ...], ...]:
    """For each phase, the weights of the input samples from ``1 - half`` to ``half``.

    Sample 0 is the last input sample that does not lie after the output sample.
    """
    cutoff = _CUTOFF * min(1.0, up / down)
    half = half_width(up, down)
    phases = []
    for phase in range(up):
        distances = [offset - phase / up for offset in range(1 - half, half + 1)]
        raw = [_sinc(cutoff * x) * _kaiser(x / half) for x in distances]
        total = sum(raw)
        phases.append(tuple(value / total for value in raw))
    return tuple(phases)


def half_width(up: int, down: int) -> int:
    """The number of input samples that the filter uses on each side of an output sample."""
    return math.ceil(_CROSSINGS * max(1.0, down / up))


def _sinc(x: float) -> float:
    return 1.0 if x == 0 else math.sin(math.pi * x) / (math.pi * x)


def _kaiser(x: float) -> float:
    return 0.0 if abs(x) > 1 else _bessel(_KAISER_BETA * math.sqrt(1 - x * x)) / _bessel(_KAISER_BETA)


def _bessel(x: float) -> float:
    """The modified Bessel function of the first kind and order zero, by its series."""
    term = total = 1.0
    for k in range(1, 40):
        term *= (x / (2 * k)) ** 2
        total += term
    return total


def ratio(rate: int) -> tuple[int, int]:
    """``up`` and ``down`` for an input rate."""
    common = math.gcd(rate, SAMPLE_RATE)
    return SAMPLE_RATE // common, rate // common


class Resampler:
    """Resamples one stream from ``rate``. It begins at input position ``start``, a multiple of ``down``.

    :raises ValueError: if ``start`` is not a multiple of ``down`` (see :func:`ratio`).
    """

    def __init__(self, rate: int, *, start: int = 0) -> None:
        self._up, self._down = ratio(rate)
        self._weights = _weights(self._up, self._down)
        self._half = half_width(self._up, self._down)
        if start % self._down:
            raise ValueError(f"{start} is not a multiple of {self._down}")
        # The window of the next output sample begins at `_index` of `_input`, and its phase is `_phase`.
        self._input: list[float] = [0.0] * (self._half - 1)
        self._index = 0
        self._phase = 0

    def push(self, samples: Sequence[float]) -> list[float]:
        """Add input samples. :returns: the output samples that can now be computed."""
        held = self._input
        held.extend(samples)
        up, down, weights, taps = self._up, self._down, self._weights, 2 * self._half
        index, phase, last = self._index, self._phase, len(held) - taps
        output = []
        while index <= last:
            output.append(sum(map(mul, held[index : index + taps], weights[phase])))
            phase += down
            index += phase // up
            phase %= up
        dropped = min(index, len(held))
        del held[:dropped]
        self._index, self._phase = index - dropped, phase
        return output

    def finish(self) -> list[float]:
        """End the input. :returns: the last output samples, computed as if silence followed the input."""
        return self.push([0.0] * self._half)


def warm_up(rate: int) -> int:
    """The number of blocks of ``down`` input samples after which the output is exact."""
    up, down = ratio(rate)
    return 0 if rate == SAMPLE_RATE else math.ceil(half_width(up, down) / down) + 1
