"""Measures which batch size is fastest.

On a device with idle compute units, a batch of two takes hardly longer than one item. On a busy CPU, the batch takes
twice as long or, with padding and a full cache, even longer. So this module measures the speed of each batch size,
separately for each bucket of items of similar length. Sizes are rounded down to powers of two. The rate of a size, in
items per second, is an exponentially weighted mean. The limit of the batch size is the size with the best rate. The
limit doubles while each doubling raises the rate by more than ``GAIN``. Rates may change with time, so now and then a
batch tries the next smaller or larger size. A try is expected to cost some extra time. A new try starts only
if, since the last try, the bucket's batches have run for at least a hundred times this extra time.
"""

from __future__ import annotations

from dataclasses import dataclass, field

SAMPLES = 3
"""The number of batches of a size that must be measured before its rate is used."""
EXPLORATION = 0.01
"""Tries of other sizes are expected to lose at most this share of the time."""
GAIN = 1.02
"""A larger size replaces a smaller one only if it is faster by this factor, because a larger batch makes its first item
wait longer."""
_WEIGHT = 0.2
_RARE_WEIGHT = 0.5
"""The weight of a batch in the mean, if the time since the last measurement of its size exceeds ``_RARE_FACTOR`` times
the batch's duration."""
_RARE_FACTOR = 20


@dataclass(slots=True)
class _Rate:
    items_per_s: float = 0.0
    samples: int = 0
    measured_at: float = 0.0
    """When the size was last measured, on the bucket's clock (``_Bucket.seconds``)."""

    def add(self, items_per_s: float, *, now: float, seconds: float) -> None:
        rare = now - self.measured_at > _RARE_FACTOR * seconds
        self.samples += 1
        self.measured_at = now
        weight = max(_RARE_WEIGHT if rare else _WEIGHT, 1 / self.samples)
        self.items_per_s += weight * (items_per_s - self.items_per_s)


@dataclass(slots=True)
class _Bucket:
    rates: dict[int, _Rate] = field(default_factory=dict)
    explored_smaller: bool = False
    """Whether the last try used the smaller size."""
    explored_at: float = 0.0
    """When the last try was, on the clock ``seconds``."""
    seconds: float = 0.0
    """How long the batches of this bucket have run in total. This is the clock of its measurements."""

    def rate(self, size: int) -> float | None:
        """The rate of a size, if it is known well enough."""
        rate = self.rates.get(size)
        return rate.items_per_s if rate is not None and rate.samples >= SAMPLES else None

    def best(self) -> int:
        """The best size so far. A larger size replaces it only if its rate is higher by the factor ``GAIN``."""
        best = 1
        for size in sorted(self.rates):
            rate, best_rate = self.rate(size), self.rate(best)
            if rate is not None and best_rate is not None and rate > GAIN * best_rate:
                best = size
        return best

    def loss(self, size: int, best: int) -> float:
        """How many seconds longer a batch of ``size`` items takes than the same items in batches of the best size."""
        rate, best_rate = self.rate(size), self.rate(best)
        return 0.0 if rate is None or best_rate is None else max(0.0, size / rate - size / best_rate)


class SizeLimits:
    """The limit of the batch size for each length bucket. A bucket has items of similar length (:mod:`.batcher`)."""

    def __init__(self) -> None:
        self._buckets: dict[int, _Bucket] = {}

    def observe(self, bucket: int, size: int, seconds: float) -> None:
        """Record that a batch of ``size`` items took ``seconds``."""
        if seconds > 0:
            known = self._buckets.setdefault(bucket, _Bucket())
            known.seconds += seconds
            rate = known.rates.setdefault(1 << (size.bit_length() - 1), _Rate())
            rate.add(size / seconds, now=known.seconds, seconds=seconds)

    def next_size(self, bucket: int, most: int) -> int:
        """How many items the next batch may have, at most ``most``."""
        known = self._buckets.setdefault(bucket, _Bucket())
        best = known.best()
        if known.rate(best) is None:
            return min(best, most)
        if known.rate(best * 2) is None:  # climb while each larger size is faster
            return min(best * 2, most)
        other = best * 2 if known.explored_smaller else max(1, best // 2)
        if known.loss(other, best) <= EXPLORATION * (known.seconds - known.explored_at):
            known.explored_smaller = not known.explored_smaller
            known.explored_at = known.seconds
            return min(other, most)
        return min(best, most)
