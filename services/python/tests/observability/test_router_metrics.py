"""What the router of one pool or model counts."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, generate_latest

from daybreak_server.observability import router_catalogue as catalogue
from daybreak_server.observability.prometheus_meter import PrometheusMeter
from daybreak_server.observability.router_metrics import RouterMetrics


def test_nothing_of_a_removed_pool_is_exported() -> None:
    """``remove`` also removes the outcomes that are not in ``OUTCOMES``, such as ``invalid_input``."""
    registry = CollectorRegistry()
    meter = PrometheusMeter(catalogue.ALL, registry)
    metrics = RouterMetrics(meter, "chat")
    kept = RouterMetrics(meter, "other")
    for router in (metrics, kept):
        router.ended("answered")
        router.ended("invalid_input")
    assert 'outcome="invalid_input",pool="chat"' in generate_latest(registry).decode()
    metrics.remove()
    exported = generate_latest(registry).decode()
    assert 'pool="chat"' not in exported
    assert 'outcome="invalid_input",pool="other"} 1.0' in exported
