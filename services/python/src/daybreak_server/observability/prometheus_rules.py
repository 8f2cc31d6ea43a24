"""The alerts as rules for Prometheus, filled in with a namespace, thresholds, and the addresses for their links."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from daybreak_server.observability.alerts import ALERTS, Alert, Needs, Thresholds
from daybreak_server.observability.alerts_batches import BATCH_ALERTS
from daybreak_server.observability.alerts_kubernetes import KUBERNETES_ALERTS
from daybreak_server.observability.alerts_models import MODEL_ALERTS
from daybreak_server.observability.alerts_sessions import SESSION_ALERTS
from daybreak_server.observability.promql import SHORTEST_S, scoped, seconds, shortened

ALL: tuple[Alert, ...] = (
    *ALERTS,
    *BATCH_ALERTS,
    *MODEL_ALERTS,
    *SESSION_ALERTS,
    *KUBERNETES_ALERTS,
)
RUNBOOKS = "https://daybreak.dev/docs/runbooks"
"""Where the runbooks are published."""
_SPAN = re.compile(r"\$\{(?P<seconds>\d+)s\}")


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the rules run."""

    here: str = ""
    """The matcher of the namespace, such as ``namespace="daybreak"``."""
    thresholds: Mapping[str, object] = field(default_factory=lambda: asdict(Thresholds()))
    runbooks: str = RUNBOOKS
    grafana: str = ""
    """Grafana's address. Empty: links to dashboards are relative."""
    factor: float = 1.0
    """Divides windows and waits, so that a test sees an alert fire within seconds."""


def rule_groups(place: Place, needs: frozenset[Needs] = frozenset(Needs)) -> list[dict[str, Any]]:
    """The groups of a rules file: one for each source that must be scraped."""
    return [
        {
            "name": f"daybreak-{source}",
            "rules": [rule(alert, place) for alert in ALL if alert.needs is source],
        }
        for source in Needs
        if source in needs
    ]


def rule(alert: Alert, place: Place) -> dict[str, Any]:
    """The rule of an alert, as in a rules file."""
    pool = "&var-pool={{ $labels.pool }}" if alert.about_pool else ""
    return {
        "alert": alert.name,
        "expr": filled(alert, place),
        "for": _waits(alert.for_, place.factor),
        # A dashboard's table of firing alerts can show only labels. So the anchor in docs/runbooks.md is a label too.
        "labels": {"severity": alert.severity.value, "runbook": alert.anchor},
        "annotations": {
            "summary": alert.summary.replace("{pool}", "{{ $labels.pool }}"),
            "runbook_url": f"{place.runbooks}#{alert.anchor}",
            "dashboard_url": f"{place.grafana}/d/{alert.dashboard}?var-namespace={{{{ $labels.namespace }}}}{pool}",
        },
    }


def filled(alert: Alert, place: Place) -> str:
    """The expression of an alert, with its placeholders replaced."""
    expression = shortened(scoped(alert.expression, here=place.here), place.factor)
    expression = _SPAN.sub(lambda match: _span(float(match["seconds"]), place.factor), expression)
    for name, value in place.thresholds.items():
        expression = expression.replace(f"${{{name}}}", f"{value}")
    return expression


def _waits(duration: str, factor: float) -> str:
    return duration if factor == 1 else f"{max(1, round(seconds(duration) / factor))}s"


def _span(seconds_: float, factor: float) -> str:
    """A number of seconds for an expression. If it is shortened, it stays at least :data:`SHORTEST_S`."""
    return f"{seconds_ if factor == 1 else max(SHORTEST_S, seconds_ / factor):g}"
