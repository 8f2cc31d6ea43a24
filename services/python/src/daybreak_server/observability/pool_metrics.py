"""The metrics of pools and of the Redis server, as they were last read from Redis.

Every gateway reads the same numbers from Redis, so every gateway exports the same values. Queries therefore take the
maximum over the gateways, never the sum. No total decreases when a group, a gateway or a worker dies.

A gateway that no longer reaches Redis must not determine the maximum forever. So it stops exporting gauges, except
``daybreak_redis_up``, once its last reading is :data:`STATE_S` old. It exports totals longer, to bridge a short outage:
they only grow, so an old total cannot raise the maximum. After :data:`TOTALS_S` it stops exporting totals too, because
Redis may have lost its data since.
"""

from __future__ import annotations

import time
from collections import Counter as CountBy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from daybreak_server.domain.pool_totals import PoolTotals
from daybreak_server.domain.pools import NOT_WAKING, GroupRecord, GroupState, PoolView, WakePhase
from daybreak_server.domain.sessions import SessionsOverview
from daybreak_server.domain.tasks import Priority, State
from daybreak_server.observability import catalogue, pool_catalogue, session_metrics
from daybreak_server.observability.samples import Sample, families
from daybreak_server.ports.measurements import ServerStats
from daybreak_server.ports.metrics import Metric, MetricType

STATE_S = 60.0
TOTALS_S = 3600.0
_WAKE_TOTAL = "total"
"""In ``PoolView.wake_last``, the key of the duration of the whole wake. The other keys are phases. Only the operator
and ``daybreakd up`` store this key."""


class PoolMetrics(Collector):
    """The metrics of the pools and of the Redis server. ``clock`` returns seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._views: dict[str, tuple[float, PoolView]] = {}
        self._totals: dict[str, tuple[float, PoolTotals]] = {}
        self._sessions: dict[str, tuple[float, SessionsOverview]] = {}
        self._server: tuple[float, ServerStats] | None = None
        self._up = False

    def update(self, view: PoolView) -> None:
        """Export this view of the pool from now on."""
        self._views[view.name] = (self._clock(), view)

    def update_totals(self, totals: PoolTotals) -> None:
        """Export these totals of the pool from now on."""
        self._totals[totals.name] = (self._clock(), totals)

    def update_sessions(self, pool: str, overview: SessionsOverview) -> None:
        """From now on, export this overview of the pool's sessions, and also the pool's totals about sessions."""
        self._sessions[pool] = (self._clock(), overview)

    def update_server(self, stats: ServerStats | None, *, up: bool) -> None:
        """Export whether the Redis server answers, and the figures that it reports about itself, if any."""
        self._up = up
        if stats is not None:
            self._server = (self._clock(), stats)

    def collect(self) -> Iterable[Family]:
        """The metrics; the registry calls this."""
        return families(self._samples())

    def _samples(self) -> Iterator[Sample]:
        now_ms = time.time_ns() // 1_000_000
        for read_at, view in self._views.values():
            yield from self._recent(read_at, _of_view(view, now_ms))
        for read_at, totals in self._totals.values():
            for part in (_queue, _history, _gpu, _tenants):
                yield from self._recent(read_at, part(totals))
            if totals.name in self._sessions:
                yield from self._recent(read_at, session_metrics.of_totals(totals))
        for pool, (read_at, overview) in self._sessions.items():
            yield from self._recent(read_at, session_metrics.of_overview(pool, overview))
        yield catalogue.REDIS_UP, (), int(self._up)
        if self._server is not None:
            read_at, stats = self._server
            yield from self._recent(read_at, _of_server(stats))

    def _recent(self, read_at: float, samples: Iterable[Sample]) -> Iterator[Sample]:
        """The samples that are not too old."""
        age_s = self._clock() - read_at
        for sample in samples:
            metric, _, _ = sample
            if age_s <= (STATE_S if metric.type is MetricType.GAUGE else TOTALS_S):
                yield sample


# ── the present state ─────────────────────────────────────────────────────────────────────────────────────


def _of_view(view: PoolView, now_ms: int) -> Iterator[Sample]:
    for state, count in (
        (State.QUEUED, view.queued),
        (State.DELAYED, view.delayed),
        (State.RUNNING, view.running),
    ):
        yield pool_catalogue.POOL_TASKS, (view.name, state.value), count
    yield pool_catalogue.POOL_LIVE_TASKS, (view.name,), view.live
    yield pool_catalogue.POOL_REQUESTS, (view.name,), view.demand
    yield pool_catalogue.POOL_CAPACITY, (view.name,), sum(map(_capacity, view.groups))
    yield pool_catalogue.GROUPS_NEEDED, (view.name,), view.wanted
    counts = CountBy(map(_state_of, view.groups))
    for group_state in GroupState:
        yield pool_catalogue.GROUPS, (view.name, group_state.value), counts[group_state]
        held = sum(group.ranks for group in view.groups if _state_of(group) is group_state)
        yield pool_catalogue.GPUS_HELD, (view.name, group_state.value), held
    yield pool_catalogue.GROUPS_READY, (view.name,), sum(counts[state] for state in GroupState if state.ready)
    if view.report is not None:
        yield pool_catalogue.GROUPS_WANTED, (view.name,), view.report.wanted
    yield from _wake(view, now_ms)


def _state_of(group: GroupRecord) -> GroupState:
    return GroupState.DRAINING if group.drain and group.state.ready else group.state


def _capacity(group: GroupRecord) -> int:
    """How many requests the group accepts at once; 0 if it accepts none."""
    return (group.capacity or 0) if group.endpoint is not None and group.accepts_tasks else 0


def _wake(view: PoolView, now_ms: int) -> Iterator[Sample]:
    for phase in WakePhase:
        yield pool_catalogue.WAKE_PHASE, (view.name, phase.value), int(view.wake_phase == phase)
    phases = {phase: seconds for phase, seconds in view.wake_last.items() if phase != _WAKE_TOTAL}
    for phase_name, seconds in phases.items():
        yield pool_catalogue.WAKE_PHASE_SECONDS, (view.name, phase_name), seconds
    if phases:
        yield pool_catalogue.WAKE_LAST, (view.name,), view.wake_last.get(_WAKE_TOTAL, sum(phases.values()))
    yield pool_catalogue.WAKE_ELAPSED, (view.name,), _elapsed_s(view, now_ms)


def _elapsed_s(view: PoolView, now_ms: int) -> float:
    if view.wake_phase in NOT_WAKING:
        return 0.0
    began = view.report.wake_began_ms if view.report is not None else None
    since = began or view.wake_since_ms
    return max(0, now_ms - since) / 1000 if since is not None else 0.0


def _queue(totals: PoolTotals) -> Iterator[Sample]:
    for priority, depth in totals.queue.items():
        yield pool_catalogue.QUEUE_TASKS, (totals.name, priority), depth.tasks
        yield pool_catalogue.QUEUE_OLDEST_WAIT, (totals.name, priority), depth.oldest_wait_s
    yield pool_catalogue.FAIRNESS_ERROR, (totals.name,), totals.fairness_error_s
    yield pool_catalogue.POOL_DEAD_LETTERS, (totals.name,), totals.dead_letters


# ── totals ────────────────────────────────────────────────────────────────────────────────────────────────


def _history(totals: PoolTotals) -> Iterator[Sample]:
    pool = totals.name
    for priority in Priority:
        yield pool_catalogue.QUEUE_WAIT, (pool, priority.name.lower()), totals.waits(priority)
    yield pool_catalogue.TASK_RUN, (pool,), totals.runs
    yield pool_catalogue.TASK_CANCEL, (pool,), totals.cancels
    yield pool_catalogue.TASK_CANCEL_STEPS, (pool,), totals.cancel_steps
    yield pool_catalogue.TASKS_SUBMITTED, (pool,), totals.submitted
    yield from _by(pool_catalogue.TASKS_ENDED, pool, totals.ended)
    for (before, after), count in totals.transitions.items():
        yield pool_catalogue.TASK_TRANSITIONS, (pool, before, after), count
    matched = totals.total("matched")
    yield from _by(
        pool_catalogue.TASK_CLAIMS, pool, {"waiting_group": matched, "backlog": totals.claims - matched}
    )
    yield from _by(pool_catalogue.TASK_RETRIES, pool, totals.retries)
    yield from _by(pool_catalogue.TASK_STRIKES, pool, totals.strikes)
    yield from _by(pool_catalogue.TASK_RELEASES, pool, totals.releases)
    yield pool_catalogue.LEASES_LOST, (pool,), totals.total("leases_lost")
    yield pool_catalogue.GROUPS_LOST, (pool,), totals.total("groups_lost")
    yield pool_catalogue.WAKES, (pool,), totals.total("wakes")


def _by(metric: Metric, pool: str, values: Mapping[Any, float]) -> Iterator[Sample]:
    for label, value in values.items():
        yield metric, (pool, str(label)), value


def _gpu(totals: PoolTotals) -> Iterator[Sample]:
    yield pool_catalogue.GPU_USED, (totals.name,), totals.used_gpu_seconds
    yield from _by(pool_catalogue.GPU_WASTED, totals.name, totals.wasted_gpu_seconds)
    yield pool_catalogue.GPU_IDLE, (totals.name,), totals.idle_gpu_seconds


def _tenants(totals: PoolTotals) -> Iterator[Sample]:
    pool = totals.name
    for tenant, of_tenant in totals.tenants.items():
        yield pool_catalogue.TENANT_GPU, (pool, tenant, "used"), of_tenant.used_gpu_seconds
        yield pool_catalogue.TENANT_GPU, (pool, tenant, "wasted"), of_tenant.wasted_gpu_seconds
        yield pool_catalogue.TENANT_QUEUED, (pool, tenant), of_tenant.queued
        if of_tenant.weight is not None:
            yield pool_catalogue.TENANT_WEIGHT, (pool, tenant), of_tenant.weight


def _of_server(stats: ServerStats) -> Iterator[Sample]:
    values = {
        catalogue.REDIS_MEMORY: stats.memory_bytes,
        catalogue.REDIS_MEMORY_LIMIT: stats.memory_limit_bytes,
        catalogue.REDIS_CPU: stats.cpu_s,
        catalogue.REDIS_CLIENTS: stats.clients,
        catalogue.REDIS_AOF_ENABLED: stats.aof_enabled,
        catalogue.REDIS_AOF_HEALTHY: stats.aof_healthy,
        catalogue.REDIS_AOF_BYTES: stats.aof_bytes,
    }
    for metric, value in values.items():
        if value is not None:
            yield metric, (), float(value)
