"""The alerts about models on external workers. See ``alerts``."""

from __future__ import annotations

from daybreak_server.observability.alerts import Alert, Severity

_MODEL_WAKES = "max by (namespace, model) (daybreak_model_wake_elapsed_seconds{HERE})"
_REPLICAS_FAILED = (
    'max by (namespace, model) (max_over_time(daybreak_model_replicas{HERE,state="failed"}[10m])) > 0'
)
"""The window is longer than the pause between two tries, so a replica that fails at each try always counts."""
_UNPLACED = "max by (namespace, model) (daybreak_model_unplaced_replicas{HERE}) > 0"


def _not_ready(reason: str, which: str) -> str:
    return f'label_replace(({_MODEL_WAKES} > ${{wake_seconds}}) {which}, "reason", "{reason}", "", "")'


MODEL_ALERTS: tuple[Alert, ...] = (
    Alert(
        name="DaybreakModelNotReady",
        severity=Severity.CRITICAL,
        expression=" or ".join(
            (
                _not_ready("a replica failed", f"and ({_REPLICAS_FAILED})"),
                _not_ready("no worker has room", f"and ({_UNPLACED}) unless ({_REPLICAS_FAILED})"),
                _not_ready("it still starts", f"unless ({_UNPLACED}) unless ({_REPLICAS_FAILED})"),
            )
        ),
        for_="1m",
        summary="The model {{ $labels.model }} has been wanted for {{ $value | humanizeDuration }} without a ready "
        "replica: {{ $labels.reason }}.",
        when="a model has been wanted for longer than `monitoring.alerts.wakeSeconds` without a ready replica. The "
        "label `reason` says whether a replica failed, no worker has room, or a replica still starts",
        dashboard="daybreak-serving",
        about_pool=False,
    ),
    Alert(
        name="DaybreakReplicasFail",
        severity=Severity.WARNING,
        expression=_REPLICAS_FAILED,
        for_="15m",
        summary="{{ $value | humanize }} replicas of the model {{ $labels.model }} fail again and again.",
        when="a replica of a model has failed at least once in every 10 min, for 15 min",
        dashboard="daybreak-serving",
        about_pool=False,
    ),
    Alert(
        name="DaybreakManagerAbsent",
        severity=Severity.CRITICAL,
        expression="(max by (namespace) (avg_over_time(daybreak_manager_up{HERE}[1m])) < 0.5) and "
        "(sum by (namespace) (max by (namespace, state) (daybreak_models{HERE})) > 0)",
        for_="1m",
        summary="No manager places models, so no model starts, stops or moves.",
        when="models are registered, but for about 90 s no manager has held the lease `placement`",
        dashboard="daybreak-serving",
        about_pool=False,
    ),
)
