"""The interface through which code measures: how metrics are declared, and where their values go.

A :class:`Metric` declares a metric once (all of them are in ``observability/catalogue.py``). A :class:`Meter` returns
the series of a metric. Two adapters implement the meter: ``observability/prometheus_meter.py`` for processes with a
``/metrics`` of their own, and ``adapters/ray/ray_meter.py`` for ranks and ``APIEntrypoint``, whose metrics Ray exports.
A meter never raises an error in the code that measures.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class MetricType(StrEnum):
    """The types of Prometheus metrics that Daybreak uses."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Exporter(StrEnum):
    """The processes that export metrics."""

    GATEWAY = "gateway"
    API_ENTRYPOINT = "APIEntrypoint"
    RANK = "rank"
    OPERATOR = "operator"


class Source(StrEnum):
    """Where a metric's value is kept."""

    PROCESS = "process"
    """In the exporting process. Queries sum over instances, and after a restart the value begins at zero."""
    REDIS = "redis"
    """In Redis. Every gateway exports the same value, so queries take the maximum over instances."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """The declaration of a metric. Values are in base units: seconds, bytes, or counts."""

    name: str
    """``daybreak_<noun>_<unit>``; a counter ends in ``_total``."""
    type: MetricType
    help: str
    """What the metric measures, in a sentence."""
    labels: tuple[str, ...] = ()
    exporters: tuple[Exporter, ...]
    source: Source = Source.PROCESS
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, without infinity."""
    why_unused: str = ""
    """Why no panel and no alert uses the metric. Empty if a panel or an alert uses it."""


class CounterSeries(Protocol):
    """One series of a counter."""

    def inc(self, amount: float = 1) -> None:
        """Add ``amount``, which must not be negative."""


class GaugeSeries(Protocol):
    """One series of a gauge."""

    def inc(self, amount: float = 1) -> None:
        """Add ``amount``."""

    def dec(self, amount: float = 1) -> None:
        """Subtract ``amount``."""

    def set(self, value: float) -> None:
        """Set the value."""


class HistogramSeries(Protocol):
    """One series of a histogram."""

    def observe(self, amount: float) -> None:
        """Count one observation."""


class CountedHistogram:
    """A series of a histogram, with a counter of its observations."""

    __slots__ = ("_counter", "_histogram")

    def __init__(self, counter: CounterSeries, histogram: HistogramSeries) -> None:
        self._counter = counter
        self._histogram = histogram

    def observe(self, amount: float) -> None:
        """Count one observation in the counter and in the histogram."""
        self._counter.inc()
        self._histogram.observe(amount)


class Meter(Protocol):
    """Returns series. Pass the values of ``labels`` in the order in which the metric declares its labels."""

    def counter(self, metric: Metric, *labels: str) -> CounterSeries:
        """A series of a counter."""

    def gauge(self, metric: Metric, *labels: str) -> GaugeSeries:
        """A series of a gauge."""

    def histogram(self, metric: Metric, *labels: str) -> HistogramSeries:
        """A series of a histogram."""

    def counted(self, counter: CounterSeries, histogram: HistogramSeries) -> HistogramSeries:
        """A series that passes each observation to ``histogram`` and adds 1 to ``counter``.

        This meter must have made ``counter`` and ``histogram``.
        """

    def remove(self, metric: Metric, *labels: str) -> None:
        """Stop exporting a series, if it exists."""


class _NoSeries:
    def inc(self, amount: float = 1) -> None:
        """Do nothing."""

    def dec(self, amount: float = 1) -> None:
        """Do nothing."""

    def set(self, value: float) -> None:
        """Do nothing."""

    def observe(self, amount: float) -> None:
        """Do nothing."""


class NoMeter:
    """Measures nothing: for ranks outside Ray, whose process exports no metrics."""

    _series = _NoSeries()

    def counter(self, metric: Metric, *labels: str) -> CounterSeries:
        """A series that ignores its values."""
        return self._series

    def gauge(self, metric: Metric, *labels: str) -> GaugeSeries:
        """A series that ignores its values."""
        return self._series

    def histogram(self, metric: Metric, *labels: str) -> HistogramSeries:
        """A series that ignores its values."""
        return self._series

    def counted(self, counter: CounterSeries, histogram: HistogramSeries) -> HistogramSeries:
        """A series that ignores its values."""
        return self._series

    def remove(self, metric: Metric, *labels: str) -> None:
        """Do nothing."""
