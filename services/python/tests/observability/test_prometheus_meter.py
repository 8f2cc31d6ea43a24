"""The meter has its own counters, and its export is identical to that of ``prometheus_client``."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

from daybreak_server.observability.prometheus_meter import WAITING_MAX, PrometheusMeter
from daybreak_server.ports.metrics import Exporter, Metric, MetricType

KINDS = {MetricType.COUNTER: Counter, MetricType.GAUGE: Gauge, MetricType.HISTOGRAM: Histogram}
BUCKETS = (0.001, 0.0025, 1.0, 10.0)


def declared(name: str, type_: MetricType, *labels: str) -> Metric:
    buckets = BUCKETS if type_ is MetricType.HISTOGRAM else ()
    return Metric(
        name=name,
        type=type_,
        help=f'"{name}" \\ a\nb',
        labels=labels,
        exporters=(Exporter.GATEWAY,),
        buckets=buckets,
    )


METRICS = [
    declared("daybreak_a_total", MetricType.COUNTER),
    declared("daybreak_b_total", MetricType.COUNTER, "pool", "code"),
    declared("daybreak_c_bytes", MetricType.GAUGE),
    declared("daybreak_d_ratio", MetricType.GAUGE, "pool"),
    declared("daybreak_e_seconds", MetricType.HISTOGRAM),
    declared("daybreak_f_seconds", MetricType.HISTOGRAM, "pool"),
]
AMOUNTS = st.one_of(st.sampled_from([0.0, *BUCKETS]), st.floats(0, 20), st.integers(0, 100))
LABELS = st.sampled_from(["video", 'a"b\\c\nü', ""])
CALLS = st.lists(
    st.tuples(st.sampled_from(METRICS), LABELS, AMOUNTS, st.sampled_from(["inc", "dec", "set", "remove"]))
)


class Reference:
    """The same metrics, counted by ``prometheus_client``."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.series = {}
        for metric in METRICS:
            options = {"buckets": metric.buckets} if metric.type is MetricType.HISTOGRAM else {}
            self.series[metric.name] = KINDS[metric.type](
                metric.name, metric.help, metric.labels, registry=self.registry, **options
            )


@given(CALLS)
def test_the_export_is_that_of_prometheus_client(calls: list[tuple[Metric, str, float, str]]) -> None:
    meter, reference = PrometheusMeter(METRICS), Reference()
    for metric, label, amount, change in calls:
        labels = (label,) * len(metric.labels)
        expected = reference.series[metric.name]
        if change == "remove":
            if labels:
                meter.remove(metric, *labels)
                if labels in expected._metrics:
                    expected.remove(*labels)
            continue
        expected = expected.labels(*labels) if labels else expected
        if metric.type is MetricType.HISTOGRAM:
            meter.histogram(metric, *labels).observe(amount)
            expected.observe(amount)
        elif metric.type is MetricType.COUNTER:
            meter.counter(metric, *labels).inc(amount)
            expected.inc(amount)
        else:
            getattr(meter.gauge(metric, *labels), change)(amount)
            getattr(expected, change)(amount)
    assert meter.render() == generate_latest(reference.registry)


def test_the_wrong_number_of_labels_is_an_error() -> None:
    with pytest.raises(ValueError, match="daybreak_b_total"):
        PrometheusMeter(METRICS).counter(METRICS[1], "video")


def test_threads_that_count_together_lose_nothing() -> None:
    meter = PrometheusMeter(METRICS)
    begin = threading.Barrier(5)

    def count() -> None:
        begin.wait()
        for number in range(2000):
            meter.counter(METRICS[1], "video", str(number % 50)).inc()
            meter.histogram(METRICS[5], "video").observe(number / 100)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    begin.wait()
    while any(thread.is_alive() for thread in threads):
        meter.render()
    for thread in threads:
        thread.join()
    counted = [
        meter.registry.get_sample_value("daybreak_b_total", {"pool": "video", "code": str(n)})
        for n in range(50)
    ]
    assert counted == [160] * 50
    assert meter.registry.get_sample_value("daybreak_f_seconds_count", {"pool": "video"}) == 8000
    assert meter.registry.get_sample_value("daybreak_f_seconds_sum", {"pool": "video"}) == pytest.approx(
        79960
    )


def test_a_counted_observation_is_in_both_series_when_they_are_read() -> None:
    meter = PrometheusMeter(METRICS)
    series = [
        meter.counted(meter.counter(METRICS[1], "video", code), meter.histogram(METRICS[5], "video"))
        for code in ("none", "failed")
    ]
    for number in range(WAITING_MAX + 3):
        series[0].observe(number / 100)
    series[1].observe(0.0025)
    get = meter.registry.get_sample_value
    assert get("daybreak_b_total", {"pool": "video", "code": "none"}) == WAITING_MAX + 3
    assert get("daybreak_b_total", {"pool": "video", "code": "failed"}) == 1
    assert get("daybreak_f_seconds_count", {"pool": "video"}) == WAITING_MAX + 4
    assert get("daybreak_f_seconds_bucket", {"pool": "video", "le": "0.0025"}) == 2
    assert get("daybreak_f_seconds_sum", {"pool": "video"}) == pytest.approx(
        sum(range(WAITING_MAX + 3)) / 100 + 0.0025
    )
    series[1].observe(1)
    assert get("daybreak_b_total", {"pool": "video", "code": "failed"}) == 2


def test_threads_that_share_a_counted_series_lose_nothing() -> None:
    meter = PrometheusMeter(METRICS)
    series = meter.counted(meter.counter(METRICS[0]), meter.histogram(METRICS[4]))

    def observe() -> None:
        for _ in range(5000):
            series.observe(1)

    threads = [threading.Thread(target=observe) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        meter.render()
    for thread in threads:
        thread.join()
    assert meter.registry.get_sample_value("daybreak_a_total") == 20_000
    assert meter.registry.get_sample_value("daybreak_e_seconds_sum") == 20_000
