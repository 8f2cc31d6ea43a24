"""The operator's metrics."""

from __future__ import annotations

import time

from daybreak_server.observability import catalogue
from daybreak_server.operator.planner.actions import Action, PoolPlan
from daybreak_server.ports.metrics import Meter

_OF_A_POOL = (
    catalogue.OPERATOR_WANTED,
    catalogue.OPERATOR_READY,
    catalogue.OPERATOR_HEALTHY,
    catalogue.OPERATOR_LAST_PLAN,
)
"""The gauges about one pool. They are removed when the pool is deleted."""


class OperatorMetrics:
    """What the operator counts. The names of its metrics begin with ``daybreak_operator_``."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._due: dict[str, float] = {}
        self._queue = meter.gauge(catalogue.OPERATOR_QUEUE)

    def record_due(self, pool: str) -> None:
        """Note that a step of the pool is due from now on, unless one was due already."""
        self._due.setdefault(pool, time.monotonic())
        self._queue.set(len(self._due))

    def record_begun(self, pool: str) -> None:
        """Note that the due step of the pool has begun, and record how long it waited."""
        due = self._due.pop(pool, None)
        self._queue.set(len(self._due))
        if due is not None:
            self._meter.histogram(catalogue.OPERATOR_DELAY, pool).observe(time.monotonic() - due)

    def record_plan(self, pool: str, plan: PoolPlan) -> None:
        """Record the results of a plan."""
        meter = self._meter
        meter.gauge(catalogue.OPERATOR_WANTED, pool).set(plan.status.wanted)
        meter.gauge(catalogue.OPERATOR_READY, pool).set(plan.status.ready)
        healthy = [
            condition.status == "True" for condition in plan.status.conditions if condition.type == "Healthy"
        ]
        meter.gauge(catalogue.OPERATOR_HEALTHY, pool).set(int(all(healthy)))
        meter.gauge(catalogue.OPERATOR_LAST_PLAN, pool).set(time.time())

    def record_action(self, pool: str, action: Action) -> None:
        """Count an action that was run."""
        self._meter.counter(catalogue.OPERATOR_ACTIONS, pool, type(action).__name__).inc()

    def record_failure(self, pool: str, exc: Exception) -> None:
        """Count a step that failed."""
        self._meter.counter(catalogue.OPERATOR_FAILURES, pool, type(exc).__name__).inc()

    def record_call(self, method: str) -> None:
        """Count a call of the Kubernetes API."""
        self._meter.counter(catalogue.OPERATOR_CALLS, method).inc()

    def record_step(self, pool: str, seconds: float) -> None:
        """Record the duration of a step."""
        self._meter.histogram(catalogue.OPERATOR_RECONCILE, pool).observe(seconds)

    def forget(self, pool: str) -> None:
        """Remove the gauges of a deleted pool."""
        self._due.pop(pool, None)
        self._queue.set(len(self._due))
        for gauge in _OF_A_POOL:
            self._meter.remove(gauge, pool)
