"""The alerts that only installations on Kubernetes have: about the operator, about KEDA, and about pools that do not
reach the state that is wanted."""

from __future__ import annotations

from daybreak_server.observability.alerts import Alert, Needs, Severity

_OPERATOR = "needs the operator"
_KEDA = "needs KEDA"


def _pool_max(metric: str) -> str:
    return f"max by (namespace, pool) ({metric}{{HERE}})"


KUBERNETES_ALERTS: tuple[Alert, ...] = (
    Alert(
        name="DaybreakOperatorAbsent",
        severity=Severity.CRITICAL,
        expression="absent(daybreak_operator_last_plan_timestamp_seconds{HERE})",
        for_="5m",
        summary="No Daybreak operator is scraped; pools may not scale.",
        when="Prometheus has scraped no operator for 5 min",
        dashboard="daybreak-wake",
        needs=Needs.OPERATOR,
        about_pool=False,
        needs_kubernetes=_OPERATOR,
    ),
    Alert(
        name="DaybreakOperatorStuck",
        severity=Severity.CRITICAL,
        expression=f"time() - {_pool_max('daybreak_operator_last_plan_timestamp_seconds')} > ${{900s}}",
        for_="1m",
        summary="The operator has not reconciled pool {pool} for 15 minutes; it does not scale.",
        when="the operator has not reconciled a pool for 15 min",
        dashboard="daybreak-wake",
        needs=Needs.OPERATOR,
        needs_kubernetes=_OPERATOR,
    ),
    Alert(
        name="DaybreakOperatorBehind",
        severity=Severity.WARNING,
        expression="histogram_quantile(0.95, sum by (namespace, le) "
        "(rate(daybreak_operator_reconcile_delay_seconds_bucket{HERE}[10m]))) > ${30s} or "
        "max by (namespace) (daybreak_operator_queue_pools{HERE}) > 20",
        for_="10m",
        summary="The operator begins its steps more than 30 s late; pools scale late.",
        when="for 10 min, more than one in twenty of the operator's steps has begun over 30 s late, or more than "
        "20 pools have waited for their step",
        dashboard="daybreak-wake",
        needs=Needs.OPERATOR,
        about_pool=False,
        needs_kubernetes=_OPERATOR,
    ),
    Alert(
        name="DaybreakOperatorFails",
        severity=Severity.WARNING,
        expression="sum by (namespace, pool) (increase(daybreak_operator_failures_total{HERE}[5m])) > 5",
        for_="10m",
        summary="Steps of the operator for pool {pool} fail again and again.",
        when="for 10 min, more than 5 of the operator's steps for a pool have failed within 5 min",
        dashboard="daybreak-wake",
        needs=Needs.OPERATOR,
        needs_kubernetes=_OPERATOR,
    ),
    Alert(
        name="DaybreakPoolUnhealthy",
        severity=Severity.WARNING,
        expression="min by (namespace, pool) (daybreak_operator_pool_healthy{HERE}) == 0",
        for_="15m",
        summary="Pool {pool} has a problem; its condition Healthy names the cause.",
        when="a pool has had a problem for 15 min, which is longer than a new node or an image pull usually takes",
        dashboard="daybreak-wake",
        needs=Needs.OPERATOR,
        needs_kubernetes=_OPERATOR,
    ),
    Alert(
        name="DaybreakGroupsMissing",
        severity=Severity.WARNING,
        expression=f"({_pool_max('daybreak_operator_groups_wanted')} > "
        f"{_pool_max('daybreak_operator_groups_ready')}) unless "
        f"({_pool_max('daybreak_wake_elapsed_seconds')} > 0)",
        for_="15m",
        summary="Pool {pool} has had fewer ready groups than wanted for 15 minutes.",
        when="a pool has had fewer ready groups than it wants for 15 min, outside a wake",
        dashboard="daybreak-wake",
        needs=Needs.OPERATOR,
        needs_kubernetes=_OPERATOR,
    ),
    Alert(
        name="DaybreakNotScaling",
        severity=Severity.WARNING,
        expression=f"({_pool_max('daybreak_pool_live_tasks')} > 0 or {_pool_max('daybreak_groups_needed')} > 0) and "
        f"({_pool_max('daybreak_operator_groups_wanted')} == 0)",
        for_="5m",
        summary="Pool {pool} has live tasks, requests or open sessions, but KEDA wants no group.",
        when="a pool has had live tasks, requests or open sessions for 5 min, but KEDA wants no group",
        dashboard="daybreak-wake",
        needs=Needs.OPERATOR,
        needs_kubernetes=_OPERATOR,
    ),
    Alert(
        name="DaybreakKedaErrors",
        severity=Severity.WARNING,
        expression="sum by (namespace, scaledObject) (increase(keda_scaled_object_errors_total{HERE}[2m])) > 0",
        for_="5m",
        summary="KEDA reports errors for the ScaledObject {{ $labels.scaledObject }}; its pool may not scale.",
        when="KEDA has reported errors for one of Daybreak's ScaledObjects for 5 min",
        dashboard="daybreak-wake",
        needs=Needs.KEDA,
        about_pool=False,
        needs_kubernetes=_KEDA,
    ),
)
