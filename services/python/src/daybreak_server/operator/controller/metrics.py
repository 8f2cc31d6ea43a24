"""The operator's Prometheus metrics."""

from __future__ import annotations

import contextlib

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from daybreak_server.operator.planner.actions import Action, Plan


class OperatorMetrics:
    """The metrics ``daybreak_operator_…``."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def name(suffix: str) -> str:
            return f"daybreak_operator_{suffix}"

        self._actions = Counter(name("actions"), "Actions run.", ["pool", "action"], registry=registry)
        self._failures = Counter(
            name("failures"), "Reconcile steps that failed, by error.", ["pool", "error"], registry=registry
        )
        self._steps = Histogram(
            name("step_seconds"), "Duration of a reconcile step.", ["pool"], registry=registry
        )
        self._wanted = Gauge(name("groups_wanted"), "Groups wanted.", ["pool"], registry=registry)
        self._ready = Gauge(name("groups_ready"), "Groups ready.", ["pool"], registry=registry)
        self._healthy = Gauge(
            name("healthy"), "1 while the pool has no known problem.", ["pool"], registry=registry
        )
        self._calls = Counter(
            name("kubernetes_calls"),
            "Calls to the Kubernetes API, except watches.",
            ["method"],
            registry=registry,
        )
        self._last_plan = Gauge(
            name("last_plan_timestamp_seconds"), "When a pool was last planned.", ["pool"], registry=registry
        )

    def record_plan(self, pool: str, plan: Plan) -> None:
        """Record the results of a plan."""
        self._wanted.labels(pool).set(plan.status.wanted)
        self._ready.labels(pool).set(plan.status.ready)
        healthy = [
            condition.status == "True" for condition in plan.status.conditions if condition.type == "Healthy"
        ]
        self._healthy.labels(pool).set(int(all(healthy)))
        self._last_plan.labels(pool).set_to_current_time()

    def record_action(self, pool: str, action: Action) -> None:
        """Count an action that was run."""
        self._actions.labels(pool, type(action).__name__).inc()

    def record_failure(self, pool: str, exc: Exception) -> None:
        """Count a step that failed."""
        self._failures.labels(pool, type(exc).__name__).inc()

    def record_call(self, method: str) -> None:
        """Count a call of the Kubernetes API."""
        self._calls.labels(method).inc()

    def record_step(self, pool: str, seconds: float) -> None:
        """Record the duration of a step."""
        self._steps.labels(pool).observe(seconds)

    def forget(self, pool: str) -> None:
        """Remove the gauges of a deleted pool."""
        for gauge in (self._wanted, self._ready, self._healthy, self._last_plan):
            with contextlib.suppress(KeyError):  # it was never planned
                gauge.remove(pool)
