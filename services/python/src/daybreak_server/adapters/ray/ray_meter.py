"""The meter of ranks and of ``APIEntrypoint``: Ray collects their metrics and exports them from each node.

Ray prefixes the names with ``ray_`` and adds labels of its own (worker, node, session). It drops the series of a
process that has ended.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ray.util import metrics as ray_metrics

from daybreak_server.ports.metrics import (
    CounterSeries,
    GaugeSeries,
    HistogramSeries,
    Metric,
    MetricType,
)

_log = logging.getLogger(__name__)


def _ignore(_value: float, tags: dict[str, str]) -> None:
    """Record nothing."""


class _Series:
    """One series. Ray's gauges know only ``set``, so the value is kept here. Never raises."""

    def __init__(self, instrument: Any, tags: dict[str, str]) -> None:
        self._instrument = instrument
        self._tags = tags
        self._value = 0.0

    def inc(self, amount: float = 1) -> None:
        """Add to a counter or gauge."""
        if isinstance(self._instrument, ray_metrics.Gauge):
            self.set(self._value + amount)
        elif amount > 0:
            self._record(self._instrument.inc, amount)
        else:  # `inc` refuses 0. Without the private method, the series begins with its first event.
            self._record(getattr(self._instrument, "_record", _ignore), 0)

    def dec(self, amount: float = 1) -> None:
        """Subtract from a gauge."""
        self.set(self._value - amount)

    def set(self, value: float) -> None:
        """Set a gauge."""
        self._value = value
        self._record(self._instrument.set, value)

    def observe(self, amount: float) -> None:
        """Count an observation."""
        self._record(self._instrument.observe, amount)

    def _record(self, call: Callable[..., None], value: float) -> None:
        try:
            call(value, tags=self._tags)
        except Exception:  # Ray may be shutting down; the work that is measured must not notice
            _log.debug("Ray did not take a measurement", exc_info=True)


class RayMeter:
    """Implements :class:`~daybreak_server.ports.metrics.Meter` in a process of a Ray cluster."""

    def __init__(self) -> None:
        self._instruments: dict[str, Any] = {}
        self._series: dict[tuple[str, ...], _Series] = {}

    def counter(self, metric: Metric, *labels: str) -> CounterSeries:
        """A series of a counter."""
        return self._labelled(metric, labels)

    def gauge(self, metric: Metric, *labels: str) -> GaugeSeries:
        """A series of a gauge."""
        return self._labelled(metric, labels)

    def histogram(self, metric: Metric, *labels: str) -> HistogramSeries:
        """A series of a histogram."""
        return self._labelled(metric, labels)

    def remove(self, metric: Metric, *labels: str) -> None:
        """Forget a series. Ray exports its last value until the process ends."""
        self._series.pop((metric.name, *labels), None)

    def _labelled(self, metric: Metric, labels: tuple[str, ...]) -> _Series:
        key = (metric.name, *labels)
        series = self._series.get(key)
        if series is None:
            instrument = self._instruments.get(metric.name)
            if instrument is None:
                instrument = self._instruments[metric.name] = _instrument(metric)
            series = self._series[key] = _Series(instrument, dict(zip(metric.labels, labels, strict=True)))
        return series


def _instrument(metric: Metric) -> Any:
    if metric.type is MetricType.HISTOGRAM:
        return ray_metrics.Histogram(
            metric.name,
            description=metric.help,
            boundaries=[bound for bound in metric.buckets if bound > 0],
            tag_keys=metric.labels,
        )
    kind = ray_metrics.Counter if metric.type is MetricType.COUNTER else ray_metrics.Gauge
    return kind(metric.name, description=metric.help, tag_keys=metric.labels)
