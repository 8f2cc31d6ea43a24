"""Turns samples, which are values that were read from Redis, into the families that Prometheus' client exports."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
)
from prometheus_client.core import Metric as Family
from prometheus_client.utils import floatToGoString

from daybreak_server.domain.pool_totals import HistogramTotals
from daybreak_server.ports.metrics import Metric, MetricType

Sample = tuple[Metric, tuple[str, ...], float | HistogramTotals]
"""A metric, the values of its labels, and a value."""


def families(samples: Iterable[Sample]) -> Iterable[Family]:
    """The families of these samples."""
    made: dict[str, Family] = {}
    for metric, labels, value in samples:
        family = made.get(metric.name)
        if family is None:
            family = made[metric.name] = _family(metric)
        _add(family, labels, value)
    return made.values()


def _family(metric: Metric) -> Family:
    kinds: dict[MetricType, type[CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily]] = {
        MetricType.COUNTER: CounterMetricFamily,
        MetricType.GAUGE: GaugeMetricFamily,
        MetricType.HISTOGRAM: HistogramMetricFamily,
    }
    return kinds[metric.type](metric.name, metric.help, labels=metric.labels)


def _add(family: Family, labels: tuple[str, ...], value: float | HistogramTotals) -> None:
    if not isinstance(family, HistogramMetricFamily):
        family.add_metric(labels, value)  # type: ignore[attr-defined]
        return
    assert isinstance(value, HistogramTotals)
    upto, buckets = 0, []
    for bound, count in zip((*value.bounds, float("inf")), value.counts, strict=True):
        upto += count
        buckets.append((floatToGoString(bound), upto))  # type: ignore[no-untyped-call]
    family.add_metric(labels, buckets, value.sum)
