"""What the operator counts, for Prometheus."""

from __future__ import annotations

import contextlib

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from daybreak_server.operator.planner.actions import Action, Plan


class OperatorMetrics:
    """``daybreak_operator_…``; labels are the pool, and what it was."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def name(of: str) -> str:
            return f"daybreak_operator_{of}"

        self._actions = Counter(
            name("actions"), "Actions carried out.", ["pool", "action"], registry=registry
        )
        self._failures = Counter(
            name("failures"), "Looks that ended early, by error.", ["pool", "error"], registry=registry
        )
        self._looks = Histogram(name("look_seconds"), "Duration of a look.", ["pool"], registry=registry)
        self._wanted = Gauge(name("groups_wanted"), "GroupStore wanted.", ["pool"], registry=registry)
        self._ready = Gauge(name("groups_ready"), "GroupStore ready.", ["pool"], registry=registry)
        self._healthy = Gauge(
            name("healthy"), "1 while the pool has no known problem.", ["pool"], registry=registry
        )
        self._calls = Counter(
            name("kubernetes_calls"),
            "Calls to the Kubernetes API, without the watches.",
            ["method"],
            registry=registry,
        )
        self._last = Gauge(
            name("last_look_timestamp_seconds"), "When a look last went through.", ["pool"], registry=registry
        )

    def planned(self, pool: str, plan: Plan) -> None:
        """A plan was made."""
        self._wanted.labels(pool).set(plan.status.wanted)
        self._ready.labels(pool).set(plan.status.ready)
        healthy = [one.status == "True" for one in plan.status.conditions if one.type == "Healthy"]
        self._healthy.labels(pool).set(int(all(healthy)))
        self._last.labels(pool).set_to_current_time()

    def carried(self, pool: str, action: Action) -> None:
        """An action was carried out."""
        self._actions.labels(pool, type(action).__name__).inc()

    def failed(self, pool: str, exc: Exception) -> None:
        """A look ended early."""
        self._failures.labels(pool, type(exc).__name__).inc()

    def called(self, method: str) -> None:
        """The Kubernetes API was called."""
        self._calls.labels(method).inc()

    def looked(self, pool: str, seconds: float) -> None:
        """A look took so long."""
        self._looks.labels(pool).observe(seconds)

    def forget(self, pool: str) -> None:
        """The pool is gone: its gauges must not stay."""
        for gauge in (self._wanted, self._ready, self._healthy, self._last):
            with contextlib.suppress(KeyError):  # it was never looked at
                gauge.remove(pool)
