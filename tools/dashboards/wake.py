"""The dashboard of wakes (from zero groups to N and back) and of KEDA, the operator and KubeRay."""

from __future__ import annotations

from dashboards.model import KUBERNETES, Dashboard, Kind, Panel, Row, Unit, quantiles, query
from daybreak_server.domain.pools import WakePhase
from daybreak_server.observability.promql import grown

_PHASES = {
    f".*{phase}$": color
    for phase, color in zip(
        WakePhase,
        (
            "#d1d5db",
            "#fde68a",
            "#fbbf24",
            "#f59e0b",
            "#ea580c",
            "#c084fc",
            "#9333ea",
            "#2563eb",
            "#16a34a",
        ),
        strict=True,
    )
}
_WAKES = Row(
    title="Wakes",
    panels=(
        Panel(
            title="Phase of the wake",
            shows="The phase in which each pool is: `zero`, `ready`, or a phase of its wake, such as `pods`, `image`, "
            "`ray` and `model`.",
            bad="A phase that does not end. The runbook's table says for each phase which part of the system hangs.",
            unit=Unit.COUNT,
            kind=Kind.TIMELINE,
            colors=_PHASES,
            runbook="daybreakwakeslow",
            width=12,
            pictured=True,
            queries=(
                query(
                    "max by (namespace, pool, phase) (daybreak_wake_phase{POOL}) == 1",
                    "{{pool}}: {{phase}}",
                ),
            ),
        ),
        Panel(
            title="Duration of the wake in progress",
            shows="How long the current wake has lasted; 0 means that there is none.",
            bad="Longer than earlier wakes. Above 15 min, an alert fires.",
            unit=Unit.SECONDS,
            runbook="daybreakwakeslow",
            alarm=900,
            width=12,
            queries=(query("max by (namespace, pool) (daybreak_wake_elapsed_seconds{POOL})", "{{pool}}"),),
        ),
        Panel(
            title="Last wake by phase",
            shows="Duration of each phase of the last complete wake.",
            bad="A long `image`: use `prePull`. A long `model`: use a cache volume. A long `pods`: nodes are missing.",
            unit=Unit.SECONDS,
            kind=Kind.BARS,
            colors=_PHASES,
            runbook="daybreakwakeslow",
            pictured=True,
            queries=(
                query(
                    "max by (namespace, pool, phase) (daybreak_wake_phase_seconds{POOL})",
                    "{{pool}}: {{phase}}",
                ),
            ),
        ),
        Panel(
            title="Duration of the last wake",
            shows="Duration of the last complete wake, from the first task, request or session to a ready group.",
            bad="Longer than the wait that your users accept.",
            unit=Unit.SECONDS,
            kind=Kind.NUMBER,
            runbook="daybreakwakeslow",
            warn=300,
            alarm=900,
            queries=(query("max by (namespace, pool) (daybreak_wake_last_seconds{POOL})", "{{pool}}"),),
        ),
        Panel(
            title="Wakes per hour",
            shows="Complete wakes in the last hour.",
            bad="Many: `scaling.cooldownPeriod` is so short that groups start again after each pause.",
            unit=Unit.COUNT,
            queries=(query(grown("daybreak_wakes_total", "1h", matchers="POOL"), "{{pool}}"),),
        ),
        Panel(
            title="Start of a group by phase",
            shows="How long the groups that run now took to start: the mean of each phase, measured by their ranks.",
            bad="`model` far above the time that it takes to read the model's files: the cache is cold.",
            unit=Unit.SECONDS,
            width=12,
            queries=(
                query(
                    "sum by (phase) (daybreak_rank_load_seconds_sum{POOL}) / "
                    "sum by (phase) (daybreak_rank_load_seconds_count{POOL})",
                    "{{phase}}",
                ),
            ),
        ),
        Panel(
            title="GPU time of starts",
            shows="GPUs held by groups that are starting.",
            bad="A large part of all GPUs held: groups start too often, or too slowly.",
            unit=Unit.GPUS,
            width=12,
            queries=(
                query(
                    "max by (namespace, pool) "
                    '(rate(daybreak_gpu_wasted_seconds_total{POOL,cause="cold_start"}[$__rate_interval]))',
                    "{{pool}}",
                ),
            ),
        ),
    ),
)

_SCALE = Row(
    title="Who decides: KEDA, the operator, KubeRay",
    panels=(
        Panel(
            title="Live tasks, KEDA's value, groups",
            shows="The live tasks that Daybreak counts, the value that KEDA read, and the groups wanted and ready.",
            bad="KEDA's value differs from Daybreak's for longer than KEDA's polling interval, or the groups do not "
            "follow KEDA's value.",
            unit=Unit.COUNT,
            runbook="daybreaknotscaling",
            width=12,
            pictured=True,
            queries=(
                query("max by (namespace, pool) (daybreak_pool_live_tasks{POOL})", "{{pool}} live tasks"),
                query(
                    "max by (namespace, scaledObject) (keda_scaler_metrics_value{HERE})",
                    "{{scaledObject}} KEDA's value",
                    no_data=KUBERNETES,
                ),
                query(
                    "max by (namespace, pool) (daybreak_operator_groups_wanted{POOL})",
                    "{{pool}} wanted",
                    no_data=KUBERNETES,
                ),
                query(
                    "max by (namespace, pool) (daybreak_operator_groups_ready{POOL})",
                    "{{pool}} ready (operator)",
                    no_data=KUBERNETES,
                ),
                query("max by (namespace, pool) (daybreak_groups_ready{POOL})", "{{pool}} ready (Redis)"),
            ),
        ),
        Panel(
            title="KEDA's errors",
            shows="KEDA's errors about Daybreak's ScaledObjects in the last hour. Empty if KEDA exports no metrics.",
            bad="Any error: KEDA cannot read Redis, for example because of a password or a network policy.",
            unit=Unit.COUNT,
            runbook="daybreakkedaerrors",
            warn=1,
            width=6,
            queries=(
                query(
                    "sum by (namespace, scaledObject) (increase(keda_scaled_object_errors_total{HERE}[1h]))",
                    "{{scaledObject}}",
                    no_data=KUBERNETES,
                ),
            ),
        ),
        Panel(
            title="KEDA's scalers",
            shows="Whether KEDA's scaler of each ScaledObject is active, which means that it sees live tasks or "
            "demand.",
            bad="Not active while tasks are live or requests wait: KEDA does not wake the pool.",
            unit=Unit.YES_NO,
            runbook="daybreaknotscaling",
            width=6,
            queries=(
                query(
                    "max by (namespace, scaledObject) (keda_scaler_active{HERE})",
                    "{{scaledObject}}",
                    no_data=KUBERNETES,
                ),
            ),
        ),
        Panel(
            title="Health of pools",
            shows="1 while the operator knows of no problem of the pool.",
            bad="0: its condition `Healthy` names the cause.",
            unit=Unit.YES_NO,
            runbook="daybreakpoolunhealthy",
            warn=1,
            alarm=0.5,
            queries=(
                query(
                    "min by (namespace, pool) (daybreak_operator_pool_healthy{POOL})",
                    "{{pool}}",
                    no_data=KUBERNETES,
                ),
            ),
        ),
        Panel(
            title="Operator's actions",
            shows="Actions of the operator in the last hour.",
            bad="`CreateCluster` and `DeleteCluster` again and again: the operator keeps replacing RayClusters.",
            unit=Unit.COUNT,
            runbook="daybreakgroupsmissing",
            queries=(
                query(
                    "sum by (action) (increase(daybreak_operator_actions_total{POOL}[1h]))",
                    "{{action}}",
                    no_data=KUBERNETES,
                ),
            ),
        ),
        Panel(
            title="Operator's failures",
            shows="Reconcile steps that failed in the last hour, by error.",
            bad="Any error that recurs: the operator's log has the message.",
            unit=Unit.COUNT,
            runbook="daybreakoperatorfails",
            warn=1,
            queries=(
                query(
                    "sum by (error) (increase(daybreak_operator_failures_total{POOL}[1h]))",
                    "{{error}}",
                    no_data=KUBERNETES,
                ),
            ),
        ),
        Panel(
            title="Reconcile steps",
            shows="Reconcile steps per second.",
            bad="0 while pools exist: the operator does nothing.",
            unit=Unit.PER_SECOND,
            runbook="daybreakoperatorstuck",
            queries=(
                query(
                    "sum by (pool) (rate(daybreak_operator_reconcile_seconds_count{POOL}[$__rate_interval]))",
                    "{{pool}}",
                    no_data=KUBERNETES,
                ),
            ),
        ),
        Panel(
            title="Duration of a reconcile step",
            shows="Median and 95th percentile of the duration of a reconcile step.",
            bad="Above a few seconds: the API server or Redis is slow.",
            unit=Unit.SECONDS,
            runbook="daybreakoperatorbehind",
            queries=quantiles("daybreak_operator_reconcile_seconds{POOL}", "pool", no_data=KUBERNETES),
        ),
        Panel(
            title="Delay of reconcile steps",
            shows="Median and 95th percentile of the time from an event to the beginning of the step that it causes.",
            bad="Above 30 s: the operator is behind.",
            unit=Unit.SECONDS,
            runbook="daybreakoperatorbehind",
            alarm=30,
            queries=quantiles("daybreak_operator_reconcile_delay_seconds{POOL}", "pool", no_data=KUBERNETES),
        ),
        Panel(
            title="Operator's work queue",
            shows="Pools whose reconcile step is due and has not begun.",
            bad="Above 5 for minutes: the operator is behind.",
            unit=Unit.COUNT,
            runbook="daybreakoperatorbehind",
            alarm=5,
            queries=(query("max(daybreak_operator_queue_pools{HERE})", "pools", no_data=KUBERNETES),),
        ),
        Panel(
            title="Calls of the Kubernetes API",
            shows="Calls from the operator to the Kubernetes API per second, by method. Watches do not count.",
            bad="A rate that stays high while nothing changes.",
            unit=Unit.PER_SECOND,
            queries=(
                query(
                    "sum by (method) (rate(daybreak_operator_kubernetes_calls_total{HERE}[$__rate_interval]))",
                    "{{method}}",
                    no_data=KUBERNETES,
                ),
            ),
        ),
        Panel(
            title="RayClusters provisioned",
            shows="1 for each RayCluster that KubeRay has provisioned, 0 for the others.",
            bad="0 for longer than a wake takes: the pods of the RayCluster do not become ready.",
            unit=Unit.YES_NO,
            runbook="daybreakgroupsmissing",
            queries=(
                query(
                    'max by (namespace, name) (kuberay_cluster_condition_provisioned{HERE,condition="true"}) or '
                    "0 * max by (namespace, name) (kuberay_cluster_condition_provisioned{HERE})",
                    "{{name}}",
                    no_data=KUBERNETES,
                ),
            ),
        ),
        Panel(
            title="Time to provision a RayCluster",
            shows="Time from the creation of a RayCluster until all its pods were ready for the first time.",
            bad="Far above the time to pull the image.",
            unit=Unit.SECONDS,
            runbook="daybreakwakeslow",
            queries=(
                query(
                    "max by (namespace, name) (kuberay_cluster_provisioned_duration_seconds{HERE})",
                    "{{name}}",
                    no_data=KUBERNETES,
                ),
            ),
        ),
    ),
)

WAKE = Dashboard(
    uid="daybreak-wake",
    title="Daybreak / Wake and scale",
    description="From zero groups to N and back: each phase of a wake, KEDA's and Daybreak's values, and the operator.",
    deeper=("daybreak-pool", "daybreak-ray"),
    rows=(_WAKES, _SCALE),
)
