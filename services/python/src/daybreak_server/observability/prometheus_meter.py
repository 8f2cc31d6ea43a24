"""The meter of processes that answer ``/metrics`` themselves: series of ``prometheus_client``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from daybreak_server.ports.metrics import (
    CounterSeries,
    GaugeSeries,
    HistogramSeries,
    Metric,
    MetricType,
)

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"


class PrometheusMeter:
    """Implements :class:`~daybreak_server.ports.metrics.Meter`. Exports each of ``metrics`` from the start."""

    def __init__(self, metrics: Iterable[Metric], registry: CollectorRegistry | None = None) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # They would add an unused series for each counter.
        self.registry = registry or CollectorRegistry()
        self._collectors = {metric.name: self._register(metric) for metric in metrics}
        self._series: dict[tuple[str, ...], Counter | Gauge | Histogram] = {}

    def counter(self, metric: Metric, *labels: str) -> CounterSeries:
        """A series of a counter."""
        return self._labelled(metric, labels)  # type: ignore[return-value]

    def gauge(self, metric: Metric, *labels: str) -> GaugeSeries:
        """A series of a gauge."""
        return self._labelled(metric, labels)  # type: ignore[return-value]

    def histogram(self, metric: Metric, *labels: str) -> HistogramSeries:
        """A series of a histogram."""
        return self._labelled(metric, labels)  # type: ignore[return-value]

    def remove(self, metric: Metric, *labels: str) -> None:
        """Stop exporting a series, if it exists."""
        self._series.pop((metric.name, *labels), None)
        with contextlib.suppress(KeyError):
            self._collectors[metric.name].remove(*labels)

    def render(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def _labelled(self, metric: Metric, labels: tuple[str, ...]) -> Counter | Gauge | Histogram:
        if not labels:
            return self._collectors[metric.name]
        key = (metric.name, *labels)
        series = self._series.get(key)
        if series is None:  # Cached, because looking up labels takes longer than counting.
            series = self._series[key] = self._collectors[metric.name].labels(*labels)
        return series

    def _register(self, metric: Metric) -> Counter | Gauge | Histogram:
        if metric.type is MetricType.HISTOGRAM:
            return Histogram(
                metric.name, metric.help, metric.labels, buckets=metric.buckets, registry=self.registry
            )
        kind = Counter if metric.type is MetricType.COUNTER else Gauge
        return kind(metric.name, metric.help, metric.labels, registry=self.registry)
