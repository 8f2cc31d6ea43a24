"""The metrics of pools: tasks, GPU time, tenants, groups and wakes.

Their values are in Redis, so every gateway exports the same values. ``catalogue.py`` lists all metrics, and
states the conventions for names and labels.
"""

from __future__ import annotations

from daybreak_server.domain import policy
from daybreak_server.ports.metrics import Exporter, Metric, MetricType, Source

API = (Exporter.GATEWAY, Exporter.API_ENTRYPOINT)


def _seconds(bounds_ms: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(ms / 1000 for ms in bounds_ms)


def _pool_counter(name: str, text: str, *labels: str, why_unused: str = "") -> Metric:
    return Metric(
        name=name,
        type=MetricType.COUNTER,
        help=text,
        labels=("pool", *labels),
        exporters=API,
        source=Source.REDIS,
        why_unused=why_unused,
    )


def _pool_gauge(name: str, text: str, *labels: str, why_unused: str = "") -> Metric:
    return Metric(
        name=name,
        type=MetricType.GAUGE,
        help=text,
        labels=("pool", *labels),
        exporters=API,
        source=Source.REDIS,
        why_unused=why_unused,
    )


def _pool_histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...]) -> Metric:
    return Metric(
        name=name,
        type=MetricType.HISTOGRAM,
        help=text,
        labels=("pool", *labels),
        exporters=API,
        source=Source.REDIS,
        buckets=buckets,
    )


# ── pools: tasks and the queue ────────────────────────────────────────────────────────────────────────────

POOL_TASKS = _pool_gauge("daybreak_pool_tasks", "Tasks that have not ended, by state.", "state")
POOL_LIVE_TASKS = _pool_gauge(
    "daybreak_pool_live_tasks",
    "Tasks that hold a group, wait for one, or will be due soon: the number that KEDA reads.",
)
POOL_DEAD_LETTERS = _pool_gauge("daybreak_pool_dead_letters", "Failed tasks that are still stored.")
QUEUE_TASKS = _pool_gauge("daybreak_queue_tasks", "Due tasks that wait for a group, by priority.", "priority")
QUEUE_OLDEST_WAIT = _pool_gauge(
    "daybreak_queue_oldest_wait_seconds",
    "How long the oldest due task has waited, by priority; 0 if none waits.",
    "priority",
)
QUEUE_WAIT = _pool_histogram(
    "daybreak_queue_wait_seconds",
    "Time from entering the queue to the claim, by priority.",
    "priority",
    buckets=_seconds(policy.WAIT_BUCKETS_MS),
)
TASKS_SUBMITTED = _pool_counter("daybreak_tasks_submitted_total", "Tasks accepted.")
TASKS_ENDED = _pool_counter("daybreak_tasks_ended_total", "Tasks ended, by their final state.", "state")
TASK_TRANSITIONS = _pool_counter(
    "daybreak_task_transitions_total",
    "Changes of a task's state; `from` is `new` when a task is accepted.",
    "from",
    "to",
)
TASK_CLAIMS = _pool_counter(
    "daybreak_task_claims_total",
    "Claims, by whether the group that claimed the task was already idle when the task entered the queue "
    "(`waiting_group`) or not (`backlog`).",
    "met",
)
TASK_RETRIES = _pool_counter(
    "daybreak_task_retries_total",
    "Attempts after which the task waited for another attempt, by reason.",
    "reason",
)
TASK_STRIKES = _pool_counter(
    "daybreak_task_strikes_total", "Strikes, by reason. The strike that fails a task counts too.", "reason"
)
TASK_RELEASES = _pool_counter(
    "daybreak_task_releases_total", "Tasks returned to the queue without a strike, by reason.", "reason"
)
LEASES_LOST = _pool_counter("daybreak_leases_lost_total", "Attempts whose lease ended without a renewal.")
TASK_RUN = _pool_histogram(
    "daybreak_task_run_seconds",
    "Run time of the attempts that succeeded, from claim to end.",
    buckets=_seconds(policy.RUN_BUCKETS_MS),
)
TASK_CANCEL = _pool_histogram(
    "daybreak_task_cancel_seconds",
    "Time from the cancel of a running task until its group had stopped the task.",
    buckets=_seconds(policy.CANCEL_BUCKETS_MS),
)
TASK_CANCEL_STEPS = _pool_histogram(
    "daybreak_task_cancel_steps",
    "Steps that a group reported after the cancel of its running task, until the group had stopped the task.",
    buckets=tuple(map(float, policy.CANCEL_STEP_BUCKETS)),
)

# ── pools: GPU time and tenants ───────────────────────────────────────────────────────────────────────────

GPU_USED = _pool_counter(
    "daybreak_gpu_used_seconds_total",
    "GPU-seconds (seconds × ranks) that had a result: those of tasks that succeeded (without those that earlier "
    "attempts lost), plus those of groups while they hold a request and do not drain. The time of groups that serve "
    "sessions is not included. Measured on the lease clock.",
)
GPU_WASTED = _pool_counter(
    "daybreak_gpu_wasted_seconds_total",
    "GPU-seconds without a result, by cause: lost by attempts that were retried (`retry`), used by tasks that "
    "were cancelled (`cancel`), expired (`expiry`) or failed (`failure`), and used by groups that start "
    "(`cold_start`). A start counts from the group's registration, so the starts of the pod and of Ray are not "
    "included.",
    "cause",
)
GPU_IDLE = _pool_counter(
    "daybreak_gpu_idle_seconds_total",
    "GPU-seconds of groups that hold no task and no request. Groups that serve sessions always count as idle, and so "
    "do groups without a task that drain.",
)
TENANT_GPU = _pool_counter(
    "daybreak_tenant_gpu_seconds_total",
    "GPU-seconds billed to a tenant, by kind: `used` by its tasks (even by those without a result), or lost by "
    "retries (`wasted`).",
    "tenant",
    "kind",
)
TENANT_QUEUED = _pool_gauge("daybreak_tenant_queued_tasks", "Due tasks of a tenant that wait.", "tenant")
TENANT_WEIGHT = _pool_gauge(
    "daybreak_tenant_weight_ratio",
    "Weight of a tenant in the fair queue, while it has waiting tasks.",
    "tenant",
)
FAIRNESS_ERROR = _pool_gauge(
    "daybreak_fairness_error_seconds",
    "Difference between the highest and the lowest virtual time of waiting tenants, in GPU-seconds ÷ weight. "
    "In a fair queue, it is at most the cost of one task.",
)

# ── pools: groups and wakes ───────────────────────────────────────────────────────────────────────────────

GROUPS = _pool_gauge(
    "daybreak_groups",
    "Groups, by state; a ready group that is marked to drain counts as `draining`.",
    "state",
)
GPUS_HELD = _pool_gauge(
    "daybreak_gpus_held", "GPUs (ranks) of the groups, by the state of their group.", "state"
)
GROUPS_READY = _pool_gauge("daybreak_groups_ready", "Groups that have formed: idle, busy or draining.")
GROUPS_WANTED = _pool_gauge(
    "daybreak_groups_wanted", "Groups that the operator wants. Absent if there is no operator."
)
POOL_REQUESTS = _pool_gauge(
    "daybreak_pool_requests",
    "Demand of a pool: the requests that wait in a gateway or that a group answers (kind `online`), or the open "
    "sessions (kind `sessions`).",
)
POOL_CAPACITY = _pool_gauge(
    "daybreak_pool_capacity_requests",
    "Requests that the ready groups of a pool of kind `online` can hold at once; groups that drain do not count.",
)
GROUPS_NEEDED = _pool_gauge(
    "daybreak_groups_needed",
    "Groups that the demand of a pool of kind `online` or `sessions` needs, by its target load: the number that KEDA "
    "reads.",
)
GROUPS_LOST = _pool_counter(
    "daybreak_groups_lost_total", "Groups that died, hung, or stopped refreshing their registration."
)
WAKE_PHASE = _pool_gauge("daybreak_wake_phase", "1 for the wake phase in which the pool is now.", "phase")
WAKE_PHASE_SECONDS = _pool_gauge(
    "daybreak_wake_phase_seconds", "Duration of each phase of the last complete wake.", "phase"
)
WAKE_LAST = _pool_gauge("daybreak_wake_last_seconds", "Duration of the last complete wake.")
WAKE_ELAPSED = _pool_gauge(
    "daybreak_wake_elapsed_seconds", "How long the wake in progress has lasted; 0 if there is none."
)
WAKES = _pool_counter(
    "daybreak_wakes_total",
    "Complete wakes. Without an operator, each group that becomes ready counts as a wake.",
)

ALL: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""All metrics of this module, in its order."""
