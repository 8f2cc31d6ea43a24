"""What ``/metrics`` tells Prometheus. Seconds and counts; every name begins with ``daybreak_``."""

from __future__ import annotations

import time
from collections import Counter as Tally
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
    """This process's own figures, and the pools' as the store told them last."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each counter, which nobody reads
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "daybreak_http_requests",
            "Requests answered.",
            ("route", "method", "status"),
            registry=self.registry,
        )
        self.latency = Histogram(
            "daybreak_http_request_seconds",
            "Seconds until the answer began.",
            ("route", "method"),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.streams_open = Gauge(
            "daybreak_streams_open", "Open event streams.", ("kind",), registry=self.registry
        )
        self.events_relayed = Counter(
            "daybreak_events_relayed", "Events handed to open streams.", registry=self.registry
        )
        self.submitted = Counter(
            "daybreak_tasks_submitted", "Tasks accepted here.", ("pool",), registry=self.registry
        )
        self.ticks = Counter(
            "daybreak_ticks", "Ticks of the queue.", ("pool", "outcome"), registry=self.registry
        )
        self.swept = Counter(
            "daybreak_files_swept", "Files deleted after tasks.", ("pool",), registry=self.registry
        )
        self._answered: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._accepted: dict[str, Counter] = {}
        self.pools = PoolFigures()
        self.registry.register(self.pools)

    def answered(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request whose answer begins after ``seconds``."""
        key = (route, method, status)
        found = self._answered.get(key)
        if found is None:  # the library's own look-up takes longer than all the rest of this
            found = (
                self.requests.labels(route, method, str(status)),
                self.latency.labels(route, method),
            )
            self._answered[key] = found
        found[0].inc()
        found[1].observe(seconds)

    def accepted(self, pool: str) -> None:
        """A task that has been accepted here."""
        found = self._accepted.get(pool)
        if found is None:
            found = self._accepted[pool] = self.submitted.labels(pool)
        found.inc()

    def render(self) -> bytes:
        """The exposition text."""
        return generate_latest(self.registry)


class PoolFigures(Collector):
    """Figures of the pools; the same from every gateway, so sum over pools, not over gateways."""

    def __init__(self) -> None:
        self._views: dict[str, PoolView] = {}
        self._ticked: dict[str, float] = {}

    def saw(self, view: PoolView) -> None:
        """The pool's latest numbers."""
        self._views[view.name] = view

    def ticked(self, pool: str) -> None:
        """A tick has just succeeded."""
        self._ticked[pool] = time.monotonic()

    def collect(self) -> Iterable[Metric]:
        """Called by the registry."""
        views = list(self._views.values())
        yield from _depths(views)
        yield from _counters(views)
        yield _groups(views)
        lag = GaugeMetricFamily(
            "daybreak_tick_lag_seconds", "Since this process's last tick.", labels=["pool"]
        )
        now = time.monotonic()
        for pool, at in self._ticked.items():
            lag.add_metric([pool], now - at)
        yield lag


def _depths(views: list[PoolView]) -> Iterator[Metric]:
    depth = GaugeMetricFamily("daybreak_pool_tasks", "Tasks now, by state.", labels=["pool", "state"])
    live = GaugeMetricFamily("daybreak_pool_live", "Tasks that hold or want a group now.", labels=["pool"])
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
    gpu = CounterMetricFamily("daybreak_gpu_seconds", "Seconds × ranks of attempts.", labels=["pool", "kind"])
    for view in views:
        for state, count in sorted(view.ended.items()):
            ended.add_metric([view.name, state], count)
        gpu.add_metric([view.name, "used"], view.used_gpu_seconds)
        gpu.add_metric([view.name, "wasted"], view.wasted_gpu_seconds)
    yield from (ended, gpu)


def _groups(views: list[PoolView]) -> Metric:
    groups = GaugeMetricFamily("daybreak_groups", "Groups now, by state.", labels=["pool", "state"])
    for view in views:
        tally = Tally(group.state for group in view.groups)
        for state in GroupState:
            groups.add_metric([view.name, state.value], tally[state])
    return groups
