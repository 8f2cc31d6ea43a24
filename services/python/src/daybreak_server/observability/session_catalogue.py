"""The metrics of streaming sessions; :mod:`~daybreak_server.observability.catalogue` lists them with all others.

Redis holds the totals, and every gateway exports them, so all gateways export the same values. Each group exports what
it measures of its own model (``daybreak_rank_…``).
"""

from __future__ import annotations

from daybreak_server.domain import policy
from daybreak_server.observability.pool_catalogue import API
from daybreak_server.ports.metrics import Exporter, Metric, MetricType, Source


def _stored(name: str, type_: MetricType, text: str, *labels: str, buckets: tuple[float, ...] = ()) -> Metric:
    return Metric(
        name=f"daybreak_{name}",
        type=type_,
        help=text,
        labels=("pool", *labels),
        exporters=API,
        source=Source.REDIS,
        buckets=buckets,
    )


def _rank(name: str, type_: MetricType, text: str, *labels: str, buckets: tuple[float, ...] = ()) -> Metric:
    return Metric(
        name=f"daybreak_rank_{name}",
        type=type_,
        help=text,
        labels=("pool", *labels),
        exporters=(Exporter.RANK,),
        buckets=buckets,
    )


# ── in Redis ──────────────────────────────────────────────────────────────────────────────────────────────

SESSIONS = _stored(
    "sessions",
    MetricType.GAUGE,
    "Open sessions, by state: `active`, or `waiting` for a group.",
    "state",
)
SESSIONS_ROOM = _stored(
    "sessions_room",
    MetricType.GAUGE,
    "How many further sessions the groups of a pool would take. Groups that drain or refuse new sessions do not count.",
)
SESSIONS_OPENED = _stored("sessions_opened_total", MetricType.COUNTER, "Sessions opened.")
SESSIONS_REFUSED = _stored(
    "sessions_refused_total",
    MetricType.COUNTER,
    "Sessions refused, by reason: `limit` (`sessions.max_sessions`) or `lag` (every group lags). Sessions that exceed "
    "the limit of a tenant do not count.",
    "reason",
)
SESSIONS_MOVED = _stored(
    "sessions_moved_total",
    MetricType.COUNTER,
    "Sessions that lost their group, by reason: `released` (the group gave them up), `left` (the group left "
    "the pool or died), `restarted` (the group restarted) or `lease_lost` (the group did not renew its lease).",
    "reason",
)
SESSIONS_ENDED = _stored(
    "sessions_ended_total",
    MetricType.COUNTER,
    "Sessions ended, by reason: `finished`, `closed`, `idle` or `failed`.",
    "reason",
)
SESSIONS_SECONDS = _stored(
    "sessions_open_seconds_total",
    MetricType.COUNTER,
    "Total time that the ended sessions were open.",
)
SESSION_WAIT = _stored(
    "session_wait_seconds",
    MetricType.HISTOGRAM,
    "How long a session waited until a group took it: a `new` session, or one that was `moved` from another group.",
    "which",
    buckets=tuple(ms / 1000 for ms in policy.WAIT_BUCKETS_MS),
)

# ── groups ────────────────────────────────────────────────────────────────────────────────────────────────

RANK_SESSIONS = _rank("sessions", MetricType.GAUGE, "Sessions that a group serves.")
RANK_SESSION_LAG = _rank(
    "session_lag_seconds",
    MetricType.HISTOGRAM,
    "Seconds of a session's audio that wait for the model, minus the length of one turn. Each session counts once "
    "a second.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0),
)
RANK_FIRST_TEXT = _rank(
    "first_text_seconds",
    MetricType.HISTOGRAM,
    "Time from the first audio of a session until its first text. Silence before the first word counts too.",
    buckets=(0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0, 60.0),
)
RANK_LATENCY_MULTIPLIER = _rank(
    "latency_multiplier_ratio",
    MetricType.GAUGE,
    "The length of a group's turns, divided by the length in its settings; above 1 after the group has lagged.",
)
RANK_SESSIONS_FULL = _rank(
    "sessions_full",
    MetricType.GAUGE,
    "1 while a group takes no new session: its turns are as long as they may be, and its sessions have lagged even so.",
)
RANK_ITERATION_SIZE = _rank(
    "iteration_items",
    MetricType.HISTOGRAM,
    "Sessions in a step of the model, by phase: `prefill`, `decode` or `mixed`.",
    "phase",
    buckets=(1.0, 2.0, 4.0, 8.0, 16.0, 24.0, 32.0, 64.0, 128.0, 256.0),
)
RANK_ITERATION = _rank(
    "iteration_seconds",
    MetricType.HISTOGRAM,
    "Duration of a step of the model, by phase.",
    "phase",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0),
)
RANK_ITERATION_SESSIONS = _rank(
    "iteration_sessions_total",
    MetricType.COUNTER,
    "Sum of the sizes of all steps of the model, in sessions, by phase. The sum of the histogram "
    "`daybreak_rank_iteration_items` is not exact, because Ray computes it from the buckets.",
    "phase",
)
RANK_ITERATION_BUSY = _rank(
    "iteration_busy_seconds_total",
    MetricType.COUNTER,
    "Time that the model of a group has spent on steps.",
)
RANK_TURNS_WAITING = _rank(
    "turns_waiting",
    MetricType.GAUGE,
    "Turns that wait for a step of the model, by phase: `prefill` (their audio is complete) or `decode` (they want "
    "their next token).",
    "phase",
)
RANK_AUDIO = _rank(
    "audio_seconds_total", MetricType.COUNTER, "Seconds of audio that the model of a group has worked on."
)
RANK_SESSION_CACHE = _rank(
    "session_cache_bytes",
    MetricType.GAUGE,
    "Memory of the caches of a group's sessions, by state: `used` or `free`. It is reserved when the group starts.",
    "state",
)

ALL: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
"""All metrics of this file, in its order."""
