"""The alerts about pools of streaming sessions. See ``alerts``."""

from __future__ import annotations

from daybreak_server.observability.alerts import Alert, Needs, Severity
from daybreak_server.observability.promql import grown

_REFUSED = f"sum by (namespace, pool) ({grown('daybreak_sessions_refused_total', '5m', 'reason')})"
_ENDED = grown("daybreak_sessions_ended_total", "10m", "reason")
_FAILED = grown("daybreak_sessions_ended_total", "10m", "reason", matchers='HERE,reason="failed"')
_LAG = (
    "histogram_quantile(0.95, "
    "sum by (namespace, pool, le) (rate(daybreak_rank_session_lag_seconds_bucket{HERE}[5m])))"
)
_WAITING = 'min by (namespace, pool) (min_over_time(daybreak_sessions{HERE,state="waiting"}[2m]))'


def _all(counts: str) -> str:
    return f"sum by (namespace, pool) ({counts})"


SESSION_ALERTS: tuple[Alert, ...] = (
    Alert(
        name="DaybreakSessionsRefused",
        severity=Severity.CRITICAL,
        expression=f"{_REFUSED} > ${{failed_requests}}",
        for_="3m",
        summary="Pool {pool} refused {{ $value | humanize }} sessions within 5 minutes.",
        when="for 3 min, a pool has refused more than `monitoring.alerts.failedRequests` sessions within 5 min, "
        "because of its limit or because its groups lag",
        dashboard="daybreak-sessions",
    ),
    Alert(
        name="DaybreakSessionsWait",
        severity=Severity.CRITICAL,
        expression=f"({_WAITING} > 0) and (max by (namespace, pool) (daybreak_groups_ready{{HERE}}) > 0)",
        for_="1m",
        summary="{{ $value | humanize }} sessions of pool {pool} wait, although groups are ready.",
        when="for 3 min, at least one session has waited for a group at every moment, although groups are ready",
        dashboard="daybreak-sessions",
    ),
    Alert(
        name="DaybreakSessionsLag",
        severity=Severity.WARNING,
        expression=f"{_LAG} > ${{session_lag_seconds}}",
        for_="5m",
        summary="Sessions of pool {pool} are {{ $value | humanizeDuration }} behind their speakers.",
        when="for 5 min, the 95th percentile of the lag of sessions has been above "
        "`monitoring.alerts.sessionLagSeconds`",
        dashboard="daybreak-sessions",
        needs=Needs.RAY,
    ),
    Alert(
        name="DaybreakSessionsDegraded",
        severity=Severity.WARNING,
        expression="max by (namespace, pool) (daybreak_rank_latency_multiplier_ratio{HERE}) > 1",
        for_="15m",
        summary="A group of pool {pool} works in turns that are {{ $value | humanize }} times as long as usual.",
        when="for 15 min, a group has worked in longer turns than its settings say, because its sessions lag",
        dashboard="daybreak-sessions",
        needs=Needs.RAY,
    ),
    Alert(
        name="DaybreakSessionsFail",
        severity=Severity.WARNING,
        expression=f"({_all(_FAILED)} / {_all(_ENDED)} > 0.01) and ({_all(_FAILED)} > ${{failed_requests}})",
        for_="5m",
        summary="{{ $value | humanizePercentage }} of the sessions of pool {pool} that ended within 10 minutes failed.",
        when="for 5 min, more than 1 % of the sessions that ended within 10 min have failed, and the number of failed "
        "sessions is above `monitoring.alerts.failedRequests`",
        dashboard="daybreak-sessions",
    ),
)
