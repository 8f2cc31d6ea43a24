"""What the router of one pool or model counts."""

from __future__ import annotations

from daybreak_server.observability import router_catalogue as catalogue
from daybreak_server.ports.metrics import Meter

OUTCOMES = (
    "answered",
    "cut_off",
    "client_gone",
    "cancelled",
    "internal",
    "queue_full",
    "not_ready",
    "deadline_passed",
    "group_failed",
    "shutting_down",
)
"""The outcomes that alerts and panels use. The code of another error becomes an outcome when the error first occurs."""
RETRY_REASONS = ("busy", "leaves", "unreachable", "no_answer")


class RouterMetrics:
    """The series of one pool, or of one model that workers serve."""

    def __init__(self, meter: Meter, pool: str) -> None:
        self._meter = meter
        self._pool = pool
        self._waiting = meter.gauge(catalogue.ROUTER_WAITING, pool)
        self._oldest_wait = meter.gauge(catalogue.ROUTER_OLDEST_WAIT, pool)
        self._in_flight = meter.gauge(catalogue.ROUTER_IN_FLIGHT, pool)
        self._groups = meter.gauge(catalogue.ROUTER_GROUPS, pool)
        self._wait = meter.histogram(catalogue.ROUTER_WAIT, pool)
        self._first_byte = meter.histogram(catalogue.ROUTER_FIRST_BYTE, pool)
        self._requests = {o: meter.counter(catalogue.ROUTER_REQUESTS, pool, o) for o in OUTCOMES}
        for series in self._requests.values():  # a rate needs a value before the first event
            series.inc(0)
        for reason in RETRY_REASONS:
            meter.counter(catalogue.ROUTER_RETRIES, pool, reason).inc(0)

    def ended(self, outcome: str) -> None:
        """Count a request that has ended."""
        series = self._requests.get(outcome)
        if series is None:
            series = self._meter.counter(catalogue.ROUTER_REQUESTS, self._pool, outcome)
            self._requests[outcome] = series
        series.inc()

    def retried(self, reason: str) -> None:
        """Count a try that ended without an answer. ``reason`` is one of ``RETRY_REASONS``."""
        self._meter.counter(catalogue.ROUTER_RETRIES, self._pool, reason).inc()

    def waited(self, seconds: float) -> None:
        """Record how long a request waited for a group."""
        self._wait.observe(seconds)

    def first_byte(self, seconds: float) -> None:
        """Record how long a client waited for the first byte."""
        self._first_byte.observe(seconds)

    def set_state(self, *, waiting: int, oldest_wait_s: float, in_flight: int, groups: int) -> None:
        """Set the present numbers."""
        self._waiting.set(waiting)
        self._oldest_wait.set(oldest_wait_s)
        self._in_flight.set(in_flight)
        self._groups.set(groups)

    def remove(self) -> None:
        """Stop exporting the series: the pool or model is gone."""
        for metric in (
            *(catalogue.ROUTER_WAITING, catalogue.ROUTER_OLDEST_WAIT, catalogue.ROUTER_IN_FLIGHT),
            *(catalogue.ROUTER_GROUPS, catalogue.ROUTER_WAIT, catalogue.ROUTER_FIRST_BYTE),
        ):
            self._meter.remove(metric, self._pool)
        for outcome in self._requests:
            self._meter.remove(catalogue.ROUTER_REQUESTS, self._pool, outcome)
        for reason in RETRY_REASONS:
            self._meter.remove(catalogue.ROUTER_RETRIES, self._pool, reason)
