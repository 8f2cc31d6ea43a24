"""The meter of ranks and of ``APIEntrypoint``: Ray collects their metrics and exports them from each node.

Ray puts ``ray_`` before each name and adds further labels (worker, node, session). Ray drops the series of a
process that has ended. Ray also drops a gauge that was not set during two of Ray's report intervals, so the meter
sets each gauge again every second. In this way a gauge keeps its last value, as in Prometheus' own client.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from ray.util import metrics as ray_metrics

from daybreak_server.ports.metrics import (
    CountedHistogram,
    CounterSeries,
    GaugeSeries,
    HistogramSeries,
    Metric,
    MetricType,
)

_log = logging.getLogger(__name__)
REPEAT_S = 1.0
"""How often a gauge is set again. Ray's shortest report interval is 1 s, and Ray drops a gauge after two intervals."""


def _ignore(_value: float, tags: dict[str, str]) -> None:
    """Record nothing."""


class _Series:
    """One series of a counter or a histogram. Never raises."""

    def __init__(self, instrument: Any, tags: dict[str, str]) -> None:
        self._instrument = instrument
        self._tags = tags

    def inc(self, amount: float = 1) -> None:
        """Add to a counter."""
        if amount > 0:
            self._record(self._instrument.inc, amount)
        else:  # Ray's `inc` refuses 0. If Ray lacks `_record`, the series begins with its first event.
            self._record(getattr(self._instrument, "_record", _ignore), 0)

    def observe(self, amount: float) -> None:
        """Count an observation."""
        self._record(self._instrument.observe, amount)

    def _record(self, call: Callable[..., None], value: float) -> None:
        try:
            call(value, tags=self._tags)
        except Exception:  # Ray may be shutting down, which must not disturb the measured work
            _log.debug("Ray did not take a measurement", exc_info=True)


class _Gauge(_Series):
    """One series of a gauge. Ray's gauges have only ``set``, so the value is kept here. Never raises."""

    def __init__(self, instrument: Any, tags: dict[str, str]) -> None:
        super().__init__(instrument, tags)
        self._value: float | None = None
        self._lock = threading.Lock()  # `repeat` runs in a separate thread

    def inc(self, amount: float = 1) -> None:
        """Add to the value."""
        with self._lock:
            self._set((self._value or 0.0) + amount)

    def dec(self, amount: float = 1) -> None:
        """Subtract from the value."""
        self.inc(-amount)

    def set(self, value: float) -> None:
        """Set the value."""
        with self._lock:
            self._set(value)

    def repeat(self) -> None:
        """Set the value again, if there is one."""
        with self._lock:
            if self._value is not None:
                self._set(self._value)

    def _set(self, value: float) -> None:
        self._value = value
        self._record(self._instrument.set, value)


class RayMeter:
    """Implements :class:`~daybreak_server.ports.metrics.Meter` in a process of a Ray cluster."""

    def __init__(self) -> None:
        self._instruments: dict[str, Any] = {}
        self._series: dict[tuple[str, ...], _Series] = {}
        self._gauges: dict[tuple[str, ...], _Gauge] = {}
        self._repeating = False

    def counter(self, metric: Metric, *labels: str) -> CounterSeries:
        """A series of a counter."""
        return self._labelled(metric, labels)

    def gauge(self, metric: Metric, *labels: str) -> GaugeSeries:
        """A series of a gauge."""
        key = (metric.name, *labels)
        gauge = self._gauges.get(key)
        if gauge is None:
            gauge = self._gauges[key] = _Gauge(self._instrument(metric), _tags(metric, labels))
            self._begin_repeating()
        return gauge

    def histogram(self, metric: Metric, *labels: str) -> HistogramSeries:
        """A series of a histogram."""
        return self._labelled(metric, labels)

    def counted(self, counter: CounterSeries, histogram: HistogramSeries) -> HistogramSeries:
        """A series whose observations count in the counter and in the histogram."""
        return CountedHistogram(counter, histogram)

    def remove(self, metric: Metric, *labels: str) -> None:
        """Forget a series. If it is a gauge, Ray drops it soon. Ray exports any other series until the process ends."""
        key = (metric.name, *labels)
        self._series.pop(key, None)
        self._gauges.pop(key, None)

    def _labelled(self, metric: Metric, labels: tuple[str, ...]) -> _Series:
        key = (metric.name, *labels)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = _Series(self._instrument(metric), _tags(metric, labels))
        return series

    def _instrument(self, metric: Metric) -> Any:
        instrument = self._instruments.get(metric.name)
        if instrument is None:
            instrument = self._instruments[metric.name] = _instrument(metric)
        return instrument

    def _begin_repeating(self) -> None:
        if not self._repeating:
            self._repeating = True
            threading.Thread(target=self._repeat, name="repeat-gauges", daemon=True).start()

    def _repeat(self) -> None:
        while True:
            time.sleep(REPEAT_S)
            for gauge in list(self._gauges.values()):
                gauge.repeat()


def _tags(metric: Metric, labels: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(metric.labels, labels, strict=True))


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
