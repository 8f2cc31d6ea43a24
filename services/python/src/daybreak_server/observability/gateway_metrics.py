"""The Prometheus metrics at ``/metrics``: seconds and counts. Every name begins with ``daybreak_``."""

from __future__ import annotations

import time
from collections import Counter as CountBy
from collections.abc import Iterable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from daybreak_server.domain.pools import GroupState, PoolView

CONTENT_TYPE = "text/plain; version=1.0.0; charset=utf-8"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class GatewayMetrics:
    """The metrics of this process, and those of the pools from their latest views."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # They would add an unused series for each counter.
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "daybreak_http_requests",
            "HTTP requests answered.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self.latency = Histogram(
            "daybreak_http_request_seconds",
            "Seconds until the response began.",
            ("route", "method"),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.streams_open = Gauge(
            "daybreak_streams_open", "Open event streams.", ("kind",), registry=self.registry
        )
        self.events_relayed = Counter(
            "daybreak_events_relayed", "Events sent to open streams.", registry=self.registry
        )
        self.submitted = Counter(
            "daybreak_tasks_submitted", "Tasks accepted by this process.", ("pool",), registry=self.registry
        )
        self.ticks = Counter(
            "daybreak_ticks", "Ticks of the queue.", ("pool", "outcome"), registry=self.registry
        )
        self.files_swept = Counter(
            "daybreak_files_swept",
            "Files of ended tasks and lost attempts that were deleted.",
            ("pool",),
            registry=self.registry,
        )
        self._request_series: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._submitted_series: dict[str, Counter] = {}
        self.pools = PoolMetrics()
        self.registry.register(self.pools)

    def observe_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request whose response began after ``seconds``."""
        key = (route, method, status)
        series = self._request_series.get(key)
        if series is None:  # Cached, because looking up labels takes longer than all the rest of this method.
            series = (
                self.requests.labels(route, method, str(status)),
                self.latency.labels(route, method),
            )
            self._request_series[key] = series
        series[0].inc()
        series[1].observe(seconds)

    def count_submitted(self, pool: str) -> None:
        """Count a task that this process accepted."""
        series = self._submitted_series.get(pool)
        if series is None:
            series = self._submitted_series[pool] = self.submitted.labels(pool)
        series.inc()

    def render(self) -> bytes:
        """The metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class PoolMetrics(Collector):
    """Metrics of the pools. Every gateway exports the same values, so do not sum over gateways."""

    def __init__(self) -> None:
        self._views: dict[str, PoolView] = {}
        self._last_tick: dict[str, float] = {}

    def update(self, view: PoolView) -> None:
        """Export this view of the pool from now on."""
        self._views[view.name] = view

    def record_tick(self, pool: str) -> None:
        """Record that a tick has just succeeded."""
        self._last_tick[pool] = time.monotonic()

    def collect(self) -> Iterable[Metric]:
        """The metrics; the registry calls this."""
        views = list(self._views.values())
        yield from _depths(views)
        yield from _counters(views)
        yield _groups(views)
        lag = GaugeMetricFamily(
            "daybreak_tick_lag_seconds", "Seconds since this process's last successful tick.", labels=["pool"]
        )
        now = time.monotonic()
        for pool, last in self._last_tick.items():
            lag.add_metric([pool], now - last)
        yield lag


def _depths(views: list[PoolView]) -> Iterator[Metric]:
    depth = GaugeMetricFamily("daybreak_pool_tasks", "Tasks, by state.", labels=["pool", "state"])
    live = GaugeMetricFamily("daybreak_pool_live", "Tasks that hold or want a group.", labels=["pool"])
    wait = GaugeMetricFamily(
        "daybreak_pool_oldest_wait_seconds", "Age of the oldest due task.", labels=["pool"]
    )
    for view in views:
        for state, count in (("queued", view.queued), ("delayed", view.delayed), ("running", view.running)):
            depth.add_metric([view.name, state], count)
        live.add_metric([view.name], view.live)
        wait.add_metric([view.name], view.oldest_wait_s or 0.0)
    yield from (depth, live, wait)


def _counters(views: list[PoolView]) -> Iterator[Metric]:
    ended = CounterMetricFamily("daybreak_tasks_ended", "Tasks ended, by state.", labels=["pool", "state"])
    gpu = CounterMetricFamily(
        "daybreak_gpu_seconds", "Seconds × ranks of attempts, used or wasted.", labels=["pool", "kind"]
    )
    for view in views:
        for state, count in sorted(view.ended.items()):
            ended.add_metric([view.name, state], count)
        gpu.add_metric([view.name, "used"], view.used_gpu_seconds)
        gpu.add_metric([view.name, "wasted"], view.wasted_gpu_seconds)
    yield from (ended, gpu)


def _groups(views: list[PoolView]) -> Metric:
    groups = GaugeMetricFamily("daybreak_groups", "Groups, by state.", labels=["pool", "state"])
    for view in views:
        counts = CountBy(group.state for group in view.groups)
        for state in GroupState:
            groups.add_metric([view.name, state.value], counts[state])
    return groups
