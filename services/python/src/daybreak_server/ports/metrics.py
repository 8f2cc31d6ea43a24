"""Metrics, as the code that measures uses them: how they are declared, and where their values go.

A :class:`Metric` declares a metric once (all of them are in ``observability/catalogue.py``). A :class:`Meter` hands out
its series. Two adapters implement the meter: ``observability/prometheus_meter.py`` for processes with a ``/metrics`` of
their own, and ``adapters/ray/ray_meter.py`` for ranks and ``APIEntrypoint``, whose metrics Ray exports. Measuring never
raises into the work that is measured.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class MetricType(StrEnum):
    """The types of Prometheus that Daybreak uses."""

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
    """Where a metric's value lives."""

    PROCESS = "process"
    """In the exporting process: queries sum over instances, and a restart begins at zero."""
    REDIS = "redis"
    """In Redis: every gateway exports the same value, so queries take the maximum over instances."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """The declaration of a metric. Values are in base units: seconds, bytes, or counts."""

    name: str
    """``daybreak_<noun>_<unit>``; a counter ends in ``_total``."""
    type: MetricType
    help: str
    """What it measures, in a sentence."""
    labels: tuple[str, ...] = ()
    exporters: tuple[Exporter, ...]
    source: Source = Source.PROCESS
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets, without infinity."""
    why_unused: str = ""
    """Why no panel and no alert uses it. Empty for a metric that one of them uses."""


class CounterSeries(Protocol):
    """One series of a counter."""

    def inc(self, amount: float = 1) -> None:
        """Add ``amount``, which is not negative."""


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
    """A series of a histogram whose observations also count in a counter."""

    __slots__ = ("_counter", "_histogram")

    def __init__(self, counter: CounterSeries, histogram: HistogramSeries) -> None:
        self._counter = counter
        self._histogram = histogram

    def observe(self, amount: float) -> None:
        """Count one observation in both."""
        self._counter.inc()
        self._histogram.observe(amount)


class Meter(Protocol):
    """Hands out series. The values of ``labels`` are in the order of the declaration."""

    def counter(self, metric: Metric, *labels: str) -> CounterSeries:
        """A series of a counter."""

    def gauge(self, metric: Metric, *labels: str) -> GaugeSeries:
        """A series of a gauge."""

    def histogram(self, metric: Metric, *labels: str) -> HistogramSeries:
        """A series of a histogram."""

    def counted(self, counter: CounterSeries, histogram: HistogramSeries) -> HistogramSeries:
        """A series whose observations count in two series of this meter: in the histogram, and as 1 in the counter."""

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
