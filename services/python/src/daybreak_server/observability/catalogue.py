"""Every metric that Daybreak exports, declared once.

The processes take their metrics from here, ``tools/reference.py`` writes the tables of docs/metrics.md from it, and
``tools/metrics.py`` checks names and uses: a metric is used by a panel or an alert, or says in ``why_unused`` why not.

Conventions: ``daybreak_<noun>_<unit>`` in base units; counters end in ``_total``. Labels are bounded: pools, states and
reasons, never ids of tasks; tenants up to ``metrics.tenants_max``, the others together as ``other``.
"""

from __future__ import annotations

from daybreak_server.domain import policy
from daybreak_server.observability import catalogue_requests
from daybreak_server.ports.metrics import Exporter, Metric, MetricType, Source

_API = (Exporter.GATEWAY, Exporter.API_ENTRYPOINT)
_CALL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_WORK_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 1800.0)
"""From a step of a small model to loading a large one."""


def _seconds(bounds_ms: tuple[int, ...]) -> tuple[float, ...]:
    return tuple(ms / 1000 for ms in bounds_ms)


def _pool_counter(name: str, text: str, *labels: str, why_unused: str = "") -> Metric:
    return Metric(
        name=name,
        type=MetricType.COUNTER,
        help=text,
        labels=("pool", *labels),
        exporters=_API,
        source=Source.REDIS,
        why_unused=why_unused,
    )


def _pool_gauge(name: str, text: str, *labels: str, why_unused: str = "") -> Metric:
    return Metric(
        name=name,
        type=MetricType.GAUGE,
        help=text,
        labels=("pool", *labels),
        exporters=_API,
        source=Source.REDIS,
        why_unused=why_unused,
    )


def _pool_histogram(name: str, text: str, *labels: str, buckets: tuple[float, ...]) -> Metric:
    return Metric(
        name=name,
        type=MetricType.HISTOGRAM,
        help=text,
        labels=("pool", *labels),
        exporters=_API,
        source=Source.REDIS,
        buckets=buckets,
    )


# ── pools: tasks and the queue ────────────────────────────────────────────────────────────────────────────

POOL_TASKS = _pool_gauge("daybreak_pool_tasks", "Tasks that have not ended, by state.", "state")
POOL_LIVE_TASKS = _pool_gauge(
    "daybreak_pool_live_tasks", "Tasks that hold or want a group: the number that KEDA reads."
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
    "Changes of a task's state; `new` is a task being accepted.",
    "from",
    "to",
)
TASK_CLAIMS = _pool_counter(
    "daybreak_task_claims_total",
    "Claims by what met: `waiting_group` if the group was idle when the task came, otherwise `backlog`.",
    "met",
)
TASK_RETRIES = _pool_counter(
    "daybreak_task_retries_total", "Attempts that were followed by another one, by reason.", "reason"
)
TASK_STRIKES = _pool_counter("daybreak_task_strikes_total", "Strikes, the last of a task included.", "reason")
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
    "Time from the cancel of a running task until its group had stopped.",
    buckets=_seconds(policy.CANCEL_BUCKETS_MS),
)
TASK_CANCEL_STEPS = _pool_histogram(
    "daybreak_task_cancel_steps",
    "Reported steps from the cancel of a running task until its group had stopped.",
    buckets=tuple(map(float, policy.CANCEL_STEP_BUCKETS)),
)

# ── pools: GPU time and tenants ───────────────────────────────────────────────────────────────────────────

GPU_USED = _pool_counter(
    "daybreak_gpu_used_seconds_total",
    "GPU-seconds (seconds × ranks) of tasks that succeeded, without what their retries lost, by the lease clock.",
)
GPU_WASTED = _pool_counter(
    "daybreak_gpu_wasted_seconds_total",
    "GPU-seconds without a result, by cause: what retries lost, tasks that were cancelled, that expired or failed, and "
    "groups that start (from their registration, so without the start of the pod and of Ray).",
    "cause",
)
GPU_IDLE = _pool_counter("daybreak_gpu_idle_seconds_total", "GPU-seconds of groups that hold no task.")
TENANT_GPU = _pool_counter(
    "daybreak_tenant_gpu_seconds_total",
    "GPU-seconds as billed to a tenant: used, also by tasks without a result, or lost by retries.",
    "tenant",
    "kind",
)
TENANT_QUEUED = _pool_gauge("daybreak_tenant_queued_tasks", "Due tasks of a tenant that wait.", "tenant")
TENANT_WEIGHT = _pool_gauge(
    "daybreak_tenant_weight_ratio", "The weight of a tenant whose tasks wait, in the fair queue.", "tenant"
)
FAIRNESS_ERROR = _pool_gauge(
    "daybreak_fairness_error_seconds",
    "How far apart the shares of waiting tenants are, in GPU-seconds ÷ weight. Fair: at most the cost of one task.",
)

# ── pools: groups and wakes ───────────────────────────────────────────────────────────────────────────────

GROUPS = _pool_gauge(
    "daybreak_groups", "Groups, by state; a ready group with a drain mark is draining.", "state"
)
GPUS_HELD = _pool_gauge(
    "daybreak_gpus_held", "GPUs (ranks) of the groups, by the state of their group.", "state"
)
GROUPS_READY = _pool_gauge("daybreak_groups_ready", "Groups that have formed: idle, busy or draining.")
GROUPS_WANTED = _pool_gauge(
    "daybreak_groups_wanted", "Groups that the operator wants; only with an operator."
)
GROUPS_LOST = _pool_counter(
    "daybreak_groups_lost_total", "Groups that died, hung, or stopped refreshing their registration."
)
WAKE_PHASE = _pool_gauge(
    "daybreak_wake_phase", "1 for the phase of the wake that the pool is in now.", "phase"
)
WAKE_PHASE_SECONDS = _pool_gauge(
    "daybreak_wake_phase_seconds", "Duration of each phase of the last complete wake.", "phase"
)
WAKE_LAST = _pool_gauge("daybreak_wake_last_seconds", "Duration of the last complete wake.")
WAKE_ELAPSED = _pool_gauge(
    "daybreak_wake_elapsed_seconds", "How long the wake in progress has lasted; 0 if there is none."
)
WAKES = _pool_counter(
    "daybreak_wakes_total", "Complete wakes; without an operator, each group that becomes ready counts."
)

# ── the Redis server ──────────────────────────────────────────────────────────────────────────────────────


def _redis(name: str, text: str, *, type_: MetricType = MetricType.GAUGE, why_unused: str = "") -> Metric:
    return Metric(
        name=name, type=type_, help=text, exporters=_API, source=Source.REDIS, why_unused=why_unused
    )


REDIS_UP = _redis("daybreak_redis_up", "1 if Redis answered when the metrics were read.")
REDIS_MEMORY = _redis("daybreak_redis_memory_bytes", "Memory that Redis uses.")
REDIS_MEMORY_LIMIT = _redis("daybreak_redis_memory_limit_bytes", "Redis's `maxmemory`; 0: no limit.")
REDIS_CPU = _redis(
    "daybreak_redis_cpu_seconds_total",
    "CPU time of Redis's main thread, which runs all scripts.",
    type_=MetricType.COUNTER,
)
REDIS_CLIENTS = _redis("daybreak_redis_clients", "Connections to Redis.")
REDIS_AOF_ENABLED = _redis("daybreak_redis_aof_enabled", "1 if Redis writes its append-only file.")
REDIS_AOF_HEALTHY = _redis(
    "daybreak_redis_aof_healthy",
    "1 if the last write and the last rewrite of the append-only file succeeded.",
)
REDIS_AOF_BYTES = _redis("daybreak_redis_aof_bytes", "Size of the append-only file.")

# ── gateways and APIEntrypoint ────────────────────────────────────────────────────────────────────────────


def _api(
    name: str,
    type_: MetricType,
    text: str,
    *labels: str,
    buckets: tuple[float, ...] = (),
    why_unused: str = "",
) -> Metric:
    return Metric(
        name=name,
        type=type_,
        help=text,
        labels=labels,
        exporters=_API,
        buckets=buckets,
        why_unused=why_unused,
    )


BUILD_INFO = _api(
    "daybreak_build_info", MetricType.GAUGE, "Always 1; the label is the version of Daybreak.", "version"
)
HTTP_REQUESTS = _api(
    "daybreak_http_requests_total",
    MetricType.COUNTER,
    "HTTP requests answered; `code` is the code of the error, or `none`.",
    "route",
    "method",
    "status",
    "code",
)
HTTP_REQUEST = _api(
    "daybreak_http_request_seconds",
    MetricType.HISTOGRAM,
    "Time until the response began.",
    "route",
    "method",
    buckets=_CALL_BUCKETS,
)
STREAM_SUBSCRIBERS = _api(
    "daybreak_stream_subscribers", MetricType.GAUGE, "Open event streams, by kind.", "kind"
)
STREAM_EVENTS = _api("daybreak_stream_events_total", MetricType.COUNTER, "Events sent to open streams.")
STREAM_RESETS = _api(
    "daybreak_stream_resets_total",
    MetricType.COUNTER,
    "Subscribers that missed events, because they read too slowly, or the events were trimmed before they came back.",
)
STREAM_LAG = _api(
    "daybreak_stream_lag_seconds",
    MetricType.HISTOGRAM,
    "Time from an event's entry in Redis until this process read it.",
    "pool",
    buckets=_CALL_BUCKETS,
)
REDIS_SCRIPT = _api(
    "daybreak_redis_script_seconds",
    MetricType.HISTOGRAM,
    "Round trip of a call of a Redis script.",
    "script",
    buckets=(0.00025, 0.0005, *_CALL_BUCKETS),
)
REDIS_SCRIPT_ERRORS = _api(
    "daybreak_redis_script_errors_total", MetricType.COUNTER, "Calls of a Redis script that failed.", "script"
)
TICKS = _api("daybreak_ticks_total", MetricType.COUNTER, "Ticks of the queue.", "pool", "outcome")
TICK_LAG = _api(
    "daybreak_tick_lag_seconds", MetricType.GAUGE, "Time since this process's last successful tick.", "pool"
)
FILES_DELETED = _api(
    "daybreak_files_deleted_total",
    MetricType.COUNTER,
    "Files of ended tasks and lost attempts that were deleted.",
    "pool",
)

# ── ranks ─────────────────────────────────────────────────────────────────────────────────────────────────


def _rank(
    name: str,
    type_: MetricType,
    text: str,
    *labels: str,
    buckets: tuple[float, ...] = (),
    why_unused: str = "",
) -> Metric:
    return Metric(
        name=f"daybreak_rank_{name}",
        type=type_,
        help=text,
        labels=("pool", *labels),
        exporters=(Exporter.RANK,),
        buckets=buckets,
        why_unused=why_unused,
    )


RANK_STEP = _rank(
    "step_seconds",
    MetricType.HISTOGRAM,
    "Duration of a step of a task, by phase.",
    "phase",
    buckets=_WORK_BUCKETS,
)
RANK_PHASE = _rank(
    "phase_seconds",
    MetricType.HISTOGRAM,
    "Duration of a phase of an attempt.",
    "phase",
    buckets=_WORK_BUCKETS,
)
RANK_LOAD = _rank(
    "load_seconds",
    MetricType.HISTOGRAM,
    "Duration of a phase of a group's start.",
    "phase",
    buckets=_WORK_BUCKETS,
)
RANK_CLAIM = _rank(
    "claim_seconds",
    MetricType.HISTOGRAM,
    "Time from a wake-up token to the claim that it led to.",
    buckets=(0.00025, 0.0005, *_CALL_BUCKETS),
)
RANK_SCRIPT = _rank(
    "script_seconds",
    MetricType.HISTOGRAM,
    "Round trip of a call of a Redis script by the leader of a group.",
    "script",
    buckets=(0.00025, 0.0005, *_CALL_BUCKETS),
)
RANK_ATTEMPTS = _rank("attempts_total", MetricType.COUNTER, "Attempts ended, by outcome.", "outcome")
RANK_HEARTBEAT_AGE = _rank(
    "heartbeat_age_seconds", MetricType.GAUGE, "Time since the work of a rank last advanced.", "rank"
)
RANK_LEASE_AGE = _rank(
    "lease_age_seconds",
    MetricType.GAUGE,
    "Time since the lease of the running task was renewed; 0: none runs.",
)

# ── the operator ──────────────────────────────────────────────────────────────────────────────────────────


def _operator(
    name: str,
    type_: MetricType,
    text: str,
    *labels: str,
    buckets: tuple[float, ...] = (),
    why_unused: str = "",
) -> Metric:
    return Metric(
        name=f"daybreak_operator_{name}",
        type=type_,
        help=text,
        labels=labels,
        exporters=(Exporter.OPERATOR,),
        buckets=buckets,
        why_unused=why_unused,
    )


OPERATOR_RECONCILE = _operator(
    "reconcile_seconds",
    MetricType.HISTOGRAM,
    "Duration of a reconcile step.",
    "pool",
    buckets=_CALL_BUCKETS,
)
OPERATOR_DELAY = _operator(
    "reconcile_delay_seconds",
    MetricType.HISTOGRAM,
    "Time from the event that asked for a step until it began.",
    "pool",
    buckets=(*_CALL_BUCKETS, 30.0, 60.0),
)
OPERATOR_QUEUE = _operator("queue_pools", MetricType.GAUGE, "Pools whose step is due and has not begun.")
OPERATOR_ACTIONS = _operator("actions_total", MetricType.COUNTER, "Actions run.", "pool", "action")
OPERATOR_FAILURES = _operator(
    "failures_total", MetricType.COUNTER, "Reconcile steps that failed, by error.", "pool", "error"
)
OPERATOR_WANTED = _operator("groups_wanted", MetricType.GAUGE, "Groups wanted.", "pool")
OPERATOR_READY = _operator("groups_ready", MetricType.GAUGE, "Groups ready.", "pool")
OPERATOR_HEALTHY = _operator(
    "pool_healthy", MetricType.GAUGE, "1 while the pool has no known problem.", "pool"
)
OPERATOR_CALLS = _operator(
    "kubernetes_calls_total", MetricType.COUNTER, "Calls to the Kubernetes API, except watches.", "method"
)
OPERATOR_LAST_PLAN = _operator(
    "last_plan_timestamp_seconds", MetricType.GAUGE, "When a pool was last planned, in Unix time.", "pool"
)

ALL: tuple[Metric, ...] = tuple(
    value
    for module in (globals(), vars(catalogue_requests))
    for value in list(module.values())
    if isinstance(value, Metric)
)


def exported_by(exporter: Exporter, source: Source = Source.PROCESS) -> tuple[Metric, ...]:
    """The metrics of one kind of process that have this source."""
    return tuple(metric for metric in ALL if exporter in metric.exporters and metric.source is source)
