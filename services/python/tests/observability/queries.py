"""All queries of the dashboards and alerts: those of panels, those of marks on graphs, and those of alerts."""

from __future__ import annotations

from dataclasses import dataclass

from dashboards import ALL
from dashboards.grafana import ANNOTATIONS
from dashboards.model import query

from daybreak_server.observability import prometheus_rules
from daybreak_server.observability.prometheus_rules import Place, filled

RATE_INTERVAL = "15s"
"""What Grafana would put in place of ``$__rate_interval``: at least four scrape intervals of the tests' Prometheus."""
RANGE = "10m"


@dataclass(frozen=True, kw_only=True)
class UsedQuery:
    """A query, where it is used, and why a run on one machine may have no data for it."""

    by: str
    expression: str
    no_data: str = ""


def of_panels() -> list[UsedQuery]:
    return [
        UsedQuery(
            by=f"{dashboard.title} / {panel.title}",
            expression=each.filled(rate_interval=RATE_INTERVAL, range_=RANGE),
            no_data=each.no_data,
        )
        for dashboard in ALL
        for panel in dashboard.panels
        for each in panel.queries
    ]


def of_annotations() -> list[UsedQuery]:
    return [
        UsedQuery(by=f"mark {name}", expression=query(text).filled(rate_interval=RATE_INTERVAL, range_=RANGE))
        for name, _, text, _, _ in ANNOTATIONS
    ]


def of_alerts() -> list[UsedQuery]:
    """The expressions of alerts, which have no data while nothing is wrong."""
    return [UsedQuery(by=alert.name, expression=filled(alert, Place())) for alert in prometheus_rules.ALL]
