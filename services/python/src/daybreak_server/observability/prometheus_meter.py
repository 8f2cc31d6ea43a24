"""The meter of processes that answer ``/metrics`` themselves.

The meter holds all numbers, and ``prometheus_client`` only renders what :meth:`PrometheusMeter.collect` returns. A
gateway counts every request. With the series of ``prometheus_client``, which have a lock for each bucket, this would
take three times as long. Here one lock protects all series. A thread holds this lock only while it changes numbers,
copies the numbers of a series, or lists, adds or removes series.

The series that count requests change most often. So a series from :meth:`PrometheusMeter.counted` first puts each
observation into a deque. When :data:`WAITING_MAX` observations wait, or when the metrics are read, the meter counts
them together. So it takes the lock less often.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from daybreak_server.ports.metrics import (
    CounterSeries,
    GaugeSeries,
    HistogramSeries,
    Metric,
    MetricType,
)

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"
WAITING_MAX = 256
"""When this number of observations waits in the deque of a counted series, they are counted together."""
_Labels = tuple[str, ...]


class _Number:
    """A series of a counter or a gauge."""

    __slots__ = ("_lock", "value")

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self.value = 0.0

    def inc(self, amount: float = 1) -> None:
        with self._lock:
            self.value += amount

    def dec(self, amount: float = 1) -> None:
        with self._lock:
            self.value -= amount

    def set(self, value: float) -> None:
        with self._lock:
            self.value = value


class _Histogram:
    """A series of a histogram."""

    __slots__ = ("_bounds", "_lock", "counts", "sum")

    def __init__(self, lock: threading.RLock, bounds: tuple[float, ...]) -> None:
        self._lock = lock
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        """How many observations each bucket has, without those of the buckets before it."""
        self.sum = 0.0

    def observe(self, amount: float) -> None:
        place = bisect_left(self._bounds, amount)
        with self._lock:
            self.counts[place] += 1
            self.sum += amount

    def observe_all(self, waiting: deque[float]) -> int:
        """Take all observations from ``waiting``, and count them. :returns: how many there were."""
        bounds, counts, observed = self._bounds, self.counts, 0
        with self._lock:
            while waiting:  # one by one, because a signal handler may run in between and count too
                amount = waiting.popleft()
                counts[bisect_left(bounds, amount)] += 1
                self.sum += amount
                observed += 1
        return observed


class _Counted:
    """A histogram with a counter. Observations wait in a deque, until the histogram and the counter count them."""

    __slots__ = ("_counter", "_histogram", "_waiting")

    def __init__(self, counter: CounterSeries, histogram: _Histogram) -> None:
        self._counter = counter
        self._histogram = histogram
        self._waiting: deque[float] = deque()

    def observe(self, amount: float) -> None:
        waiting = self._waiting
        waiting.append(amount)
        if len(waiting) >= WAITING_MAX:
            self.count()

    def count(self) -> None:
        """Count the observations that wait."""
        self._counter.inc(self._histogram.observe_all(self._waiting))


class PrometheusMeter(Collector):
    """Implements :class:`~daybreak_server.ports.metrics.Meter`. Exports ``metrics``.

    A metric without labels has its series from the start; any other series begins when a caller first asks for it.
    """

    def __init__(self, metrics: Iterable[Metric], registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._lock = threading.RLock()  # reentrant: a signal handler may count while its thread has the lock
        self._counted: list[_Counted] = []
        self._metrics = tuple(metrics)
        self._series: dict[str, dict[_Labels, _Number | _Histogram]] = {m.name: {} for m in self._metrics}
        for metric in self._metrics:
            if not metric.labels:
                self._labelled(metric, ())
        self.registry.register(self)

    def counter(self, metric: Metric, *labels: str) -> CounterSeries:
        """A series of a counter."""
        return self._labelled(metric, labels)  # type: ignore[return-value]

    def gauge(self, metric: Metric, *labels: str) -> GaugeSeries:
        """A series of a gauge."""
        return self._labelled(metric, labels)  # type: ignore[return-value]

    def histogram(self, metric: Metric, *labels: str) -> HistogramSeries:
        """A series of a histogram."""
        return self._labelled(metric, labels)  # type: ignore[return-value]

    def counted(self, counter: CounterSeries, histogram: HistogramSeries) -> HistogramSeries:
        """A series whose observations go to the counter and the histogram, at the latest when metrics are read."""
        assert isinstance(histogram, _Histogram)
        series = _Counted(counter, histogram)
        self._counted.append(series)
        return series

    def remove(self, metric: Metric, *labels: str) -> None:
        """Stop exporting a series, if it exists."""
        with self._lock:
            self._series[metric.name].pop(labels, None)

    def render(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def collect(self) -> Iterator[Family]:
        """The families of all metrics, for ``prometheus_client``."""
        for counted in list(self._counted):
            counted.count()
        for metric in self._metrics:
            with self._lock:
                series = list(self._series[metric.name].items())
            yield self._family(metric, series)

    def _family(self, metric: Metric, series: Iterable[tuple[_Labels, _Number | _Histogram]]) -> Family:
        if metric.type is MetricType.HISTOGRAM:
            histogram = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
            bounds = [*map(floatToGoString, metric.buckets), "+Inf"]
            for labels, found in series:
                assert isinstance(found, _Histogram)
                with self._lock:
                    counts, total = list(found.counts), found.sum
                histogram.add_metric(labels, list(zip(bounds, accumulate(counts), strict=True)), total)
            return histogram
        kind = CounterMetricFamily if metric.type is MetricType.COUNTER else GaugeMetricFamily
        family = kind(metric.name, metric.help, labels=metric.labels)
        for labels, found in series:
            assert isinstance(found, _Number)
            family.add_metric(labels, found.value)
        return family

    def _labelled(self, metric: Metric, labels: _Labels) -> _Number | _Histogram:
        found = self._series[metric.name].get(labels)
        return found if found is not None else self._add(metric, labels)

    def _add(self, metric: Metric, labels: _Labels) -> _Number | _Histogram:
        if len(labels) != len(metric.labels):
            raise ValueError(
                f"{metric.name} has the labels {metric.labels}, but the values {labels} were given."
            )
        is_histogram = metric.type is MetricType.HISTOGRAM
        made = _Histogram(self._lock, metric.buckets) if is_histogram else _Number(self._lock)
        with self._lock:
            return self._series[metric.name].setdefault(labels, made)
