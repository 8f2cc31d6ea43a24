"""Every metric that Daybreak exports. Each is declared once.

The metrics of pools are in ``pool_catalogue.py``, those of requests in ``router_catalogue.py`` and
``request_catalogue.py``, those of batches in ``batch_catalogue.py``, those of models in ``model_catalogue.py``, and
those of streaming sessions in ``session_catalogue.py``; this file declares the rest. Processes export only declared
metrics, and ``tools/reference.py`` writes the tables of docs/metrics.md from the declarations. ``tools/metrics.py``
checks that the names follow the conventions below. It also checks each metric: a panel or an alert must use the
metric, or the metric's ``why_unused`` must say why none does.

Conventions: ``daybreak_<noun>_<unit>`` in base units; counters end in ``_total``. Each label has a limited number of
values, such as the pools, states or reasons. No label holds the id of a task. At most ``metrics.tenants_max`` tenants
of a pool have label values of their own; all other tenants are counted together as ``other``. In
``model_catalogue.py``, at most ``model_metrics.MODELS_MAX`` models have label values of their own; all other models are
counted together as ``other``. But the metrics of routers have series for every registered model.
"""

from __future__ import annotations

from daybreak_server.observability import (
    batch_catalogue,
    model_catalogue,
    pool_catalogue,
    request_catalogue,
    router_catalogue,
    session_catalogue,
)
from daybreak_server.observability.pool_catalogue import API
from daybreak_server.ports.metrics import Exporter, Metric, MetricType, Source

_CALL_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_WORK_BUCKETS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 1800.0)
"""These buckets fit all durations, from a step of a small model to the loading of a large one."""


# ── the Redis server ──────────────────────────────────────────────────────────────────────────────────────


def _redis(name: str, text: str, *, type_: MetricType = MetricType.GAUGE, why_unused: str = "") -> Metric:
    return Metric(name=name, type=type_, help=text, exporters=API, source=Source.REDIS, why_unused=why_unused)


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
        exporters=API,
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
    "daybreak_stream_subscribers",
    MetricType.GAUGE,
    "Open streams, by kind: `sse` and `ws` (events of tasks), and `session` (WebSockets of streaming sessions).",
    "kind",
)
STREAM_EVENTS = _api("daybreak_stream_events_total", MetricType.COUNTER, "Events sent to open streams.")
STREAM_RESETS = _api(
    "daybreak_stream_resets_total",
    MetricType.COUNTER,
    "Times that a subscriber missed events, because it read too slowly or the events were trimmed too early.",
)
STREAM_LAG = _api(
    "daybreak_stream_lag_seconds",
    MetricType.HISTOGRAM,
    "Time from when an event was written to Redis until this process read it.",
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
    "Deleted files of ended tasks and of lost attempts.",
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
    "Time from a wake-up to the claim that it led to.",
    buckets=(0.00025, 0.0005, *_CALL_BUCKETS),
)
RANK_SCRIPT = _rank(
    "script_seconds",
    MetricType.HISTOGRAM,
    "Round trip of a call of a Redis script by the leader of a group.",
    "script",
    buckets=(0.00025, 0.0005, *_CALL_BUCKETS),
)
RANK_ATTEMPTS = _rank(
    "attempts_total",
    MetricType.COUNTER,
    "Attempts ended, by outcome: `finished`, `failed`, `released`, `stopped`, `broken` (the group could not continue) "
    "or `lost` (another attempt has the task).",
    "outcome",
)
RANK_HEARTBEAT_AGE = _rank(
    "heartbeat_age_seconds", MetricType.GAUGE, "Time since the work of a rank last advanced.", "rank"
)
RANK_LEASE_AGE = _rank(
    "lease_age_seconds",
    MetricType.GAUGE,
    "Time since the lease of the running task was renewed; 0 if no task runs.",
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
    "Time from the event that asked for a reconcile step until the step began.",
    "pool",
    buckets=(*_CALL_BUCKETS, 30.0, 60.0),
)
OPERATOR_QUEUE = _operator("queue_pools", MetricType.GAUGE, "Pools whose step is due and has not begun.")
OPERATOR_ACTIONS = _operator(
    "actions_total", MetricType.COUNTER, "Actions that the operator ran.", "pool", "action"
)
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
    "last_plan_timestamp_seconds",
    MetricType.GAUGE,
    "When the operator last planned a pool, in Unix time.",
    "pool",
)

ALL: tuple[Metric, ...] = (
    *pool_catalogue.ALL,
    *(value for value in list(globals().values()) if isinstance(value, Metric)),
    *router_catalogue.ALL,
    *request_catalogue.ALL,
    *model_catalogue.ALL,
    *batch_catalogue.ALL,
    *session_catalogue.ALL,
)


def exported_by(exporter: Exporter, source: Source = Source.PROCESS) -> tuple[Metric, ...]:
    """The metrics that one kind of process exports and that have this source."""
    return tuple(metric for metric in ALL if exporter in metric.exporters and metric.source is source)
