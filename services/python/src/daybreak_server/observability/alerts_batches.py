"""The alerts about pools whose groups compute in batches. See ``alerts``."""

from __future__ import annotations

from daybreak_server.observability.alerts import Alert, Needs, Severity


def _within_5m(counter: str) -> str:
    return f"sum by (namespace, pool) (increase(daybreak_rank_batch_{counter}{{HERE}}[5m]))"


_WAIT = (
    "histogram_quantile(0.9, "
    "sum by (namespace, pool, le) (rate(daybreak_rank_batch_wait_seconds_bucket{HERE}[5m])))"
)
_FAILED = _within_5m("failures_total")

BATCH_ALERTS: tuple[Alert, ...] = (
    Alert(
        name="DaybreakItemsRefused",
        severity=Severity.CRITICAL,
        expression=f"{_within_5m('refused_total')} > ${{failed_requests}}",
        for_="3m",
        summary="Groups of pool {pool} refused {{ $value | humanize }} requests within 5 minutes, because too many "
        "items wait for a batch.",
        when="for 3 min, groups of a pool have refused more than `monitoring.alerts.failedRequests` requests within "
        "5 min with 429, because too many items waited for a batch",
        dashboard="daybreak-serving",
        needs=Needs.RAY,
    ),
    Alert(
        name="DaybreakBatchesWait",
        severity=Severity.WARNING,
        expression=f"{_WAIT} > ${{batch_wait_seconds}}",
        for_="10m",
        summary="Items of pool {pool} wait for {{ $value | humanizeDuration }} before their batch begins.",
        when="for 10 min, in more than one of ten batches, an item has waited longer than "
        "`monitoring.alerts.batchWaitSeconds`; items of bulk work do not count",
        dashboard="daybreak-serving",
        needs=Needs.RAY,
    ),
    Alert(
        name="DaybreakBatchesFail",
        severity=Severity.WARNING,
        expression=f"({_FAILED} / {_within_5m('seconds_count')} > 0.01) and ({_FAILED} > ${{failed_requests}})",
        for_="10m",
        summary="{{ $value | humanizePercentage }} of the batches of pool {pool} raise an error.",
        when="for 10 min, more than 1 % of a pool's batches, and more than `monitoring.alerts.failedRequests` batches "
        "in 5 min, have raised an error",
        dashboard="daybreak-serving",
        needs=Needs.RAY,
    ),
)
