"""The metrics of the HTTP server itself, and the metrics of pools and models that ``/metrics`` shows."""

from __future__ import annotations

import time
from importlib.metadata import version

from prometheus_client import CollectorRegistry, generate_latest

from daybreak_server.observability import catalogue
from daybreak_server.observability.model_metrics import ModelMetrics
from daybreak_server.observability.pool_metrics import PoolMetrics
from daybreak_server.observability.prometheus_meter import PrometheusMeter
from daybreak_server.ports.metrics import Exporter, HistogramSeries, Meter


class GatewayMetrics:
    """The measurements of the HTTP server's parts.

    ``meter`` receives the measurements. The default meter exports them at ``/metrics``. The metrics of pools and models
    are always at ``/metrics``, even in a process whose own metrics Ray exports.
    """

    def __init__(self, meter: Meter | None = None) -> None:
        self.registry = CollectorRegistry()
        self.pools = PoolMetrics()
        self.registry.register(self.pools)
        self.models = ModelMetrics()
        self.registry.register(self.models)
        self.meter = meter or PrometheusMeter(catalogue.exported_by(Exporter.GATEWAY), self.registry)
        self._last_tick: dict[str, float] = {}
        # The series that change most often are kept here, because looking one up takes longer than counting.
        self._requests: dict[tuple[str, str, int, str], HistogramSeries] = {}
        self._scripts: dict[str, HistogramSeries] = {}
        self._events = self.meter.counter(catalogue.STREAM_EVENTS)
        self._resets = self.meter.counter(catalogue.STREAM_RESETS)
        self.meter.gauge(catalogue.BUILD_INFO, version("daybreak-server")).set(1)

    def observe_request(self, route: str, method: str, status: int, code: str, seconds: float) -> None:
        """Count a request whose response began after ``seconds``. ``code`` is its error code, or ``none``."""
        key = (route, method, status, code)
        series = self._requests.get(key)
        if series is None:
            series = self._requests[key] = self.meter.counted(
                self.meter.counter(catalogue.HTTP_REQUESTS, route, method, str(status), code),
                self.meter.histogram(catalogue.HTTP_REQUEST, route, method),
            )
        series.observe(seconds)

    def observe_script(self, script: str, seconds: float, succeeded: bool) -> None:
        """Count a call of a Redis script."""
        histogram = self._scripts.get(script)
        if histogram is None:
            histogram = self._scripts[script] = self.meter.histogram(catalogue.REDIS_SCRIPT, script)
        histogram.observe(seconds)
        if not succeeded:
            self.meter.counter(catalogue.REDIS_SCRIPT_ERRORS, script).inc()

    def stream_opened(self, kind: str) -> None:
        """Count a stream that a client has opened."""
        self.meter.gauge(catalogue.STREAM_SUBSCRIBERS, kind).inc()

    def stream_closed(self, kind: str) -> None:
        """Stop counting a stream, because it has ended."""
        self.meter.gauge(catalogue.STREAM_SUBSCRIBERS, kind).dec()

    def count_relayed(self, subscribers: int) -> None:
        """Count an event once for each of the ``subscribers`` streams to which it was sent."""
        self._events.inc(subscribers)

    def count_reset(self) -> None:
        """Count a subscriber that missed events and gets a snapshot."""
        self._resets.inc()

    def observe_lag(self, pool: str, event_ms: int) -> None:
        """Record the delay of an event that was read just now. ``event_ms``: when it entered Redis, Unix time in ms."""
        self.meter.histogram(catalogue.STREAM_LAG, pool).observe(max(0.0, time.time() - event_ms / 1000))

    def record_tick(self, pool: str, *, succeeded: bool) -> None:
        """Count a tick."""
        for outcome, happened in (("done", succeeded), ("failed", not succeeded)):
            # Both series exist from the first tick on, because a rate needs a value from before the first failure.
            self.meter.counter(catalogue.TICKS, pool, outcome).inc(int(happened))
        if succeeded:
            self._last_tick[pool] = time.monotonic()
        self.update_ages()

    def begin_ticks(self, pool: str) -> None:
        """Start to measure the time since the last successful tick, so that a pool has this metric even before its
        first tick."""
        self._last_tick.setdefault(pool, time.monotonic())
        self.update_ages()

    def count_deleted_files(self, pool: str, count: int) -> None:
        """Count deleted files."""
        self.meter.counter(catalogue.FILES_DELETED, pool).inc(count)

    def update_ages(self) -> None:
        """Set the gauges of the time since each pool's last successful tick."""
        now = time.monotonic()
        for pool, last in self._last_tick.items():
            self.meter.gauge(catalogue.TICK_LAG, pool).set(now - last)

    def render(self) -> bytes:
        """The metrics in Prometheus' text format."""
        self.update_ages()
        return generate_latest(self.registry)
