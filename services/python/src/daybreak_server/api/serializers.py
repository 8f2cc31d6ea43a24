"""Turns records of the store into the JSON that clients receive (``daybreak.wire``)."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

from pydantic_core import from_json

from daybreak.wire import (
    GroupLoad,
    Pool,
    PoolCondition,
    PoolGroup,
    PoolSessions,
    Priority,
    ServingPoolHealth,
    WakeHistory,
    paths,
)
from daybreak_server.api import path_prefix
from daybreak_server.api.intake.catalog import PoolEntry
from daybreak_server.domain.kinds import PoolKind
from daybreak_server.domain.pools import NOT_WAKING, WAKE_PHASES, GroupRecord, PoolView, WakePhase
from daybreak_server.domain.routing import RoutingPolicy
from daybreak_server.domain.sessions import SessionsOverview
from daybreak_server.domain.tasks import ArtifactRef, EventRecord, State, TaskRecord

GROUPS_SHOWN = 500
"""The maximum number of groups in a response about a pool. It limits the size of the response."""
_PRIORITY = {0: Priority.HIGH.value, 1: Priority.NORMAL.value, 2: Priority.LOW.value}

Json = dict[str, Any]
"""A JSON object that clients receive. It has no key for a field that is absent."""


def to_datetime(ms: int | None) -> datetime | None:
    """A time of the store as a ``datetime``, which the types of ``daybreak.wire`` use."""
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)


@lru_cache(maxsize=64)
def _second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def iso8601(ms: int) -> str:
    """A time of the store as ISO 8601 in UTC: ``2026-11-21T12:00:00.000Z``."""
    second, rest = divmod(ms, 1000)
    return f"{_second(second)}.{rest:03d}Z"


def task_path(task: str) -> str:
    """The path of a task."""
    return path_prefix.current() + paths.task_path(task)


def artifact_url(task: str, name: str) -> str:
    """The path of a task's file."""
    return path_prefix.current() + paths.artifact_path(task, name)


def artifact(task: str, ref: ArtifactRef) -> Json:
    """A file as clients see it, with a URL in place of its key in the store."""
    return {**ref.description(), "url": artifact_url(task, ref.name)}


def has_ready_group(view: PoolView) -> bool:
    """Whether a group of the pool is ready, so that no wake is needed."""
    return any(group.state.ready for group in view.groups)


def wake(view: PoolView | None, now_ms: int) -> Json | None:
    """The wake of a pool; ``None`` if the pool has a ready group, or if there is no view of it."""
    if view is None or has_ready_group(view):
        return None
    shown: Json = {"phase": WakePhase.DETECT if view.wake_phase in NOT_WAKING else view.wake_phase}
    if view.wake_since_ms is not None:
        shown["since"] = iso8601(view.wake_since_ms)
    if (eta_s := wake_eta_s(view, now_ms)) is not None:
        shown["eta_s"] = eta_s
    failure = view.failure.message if view.failure is not None else ""
    if message := failure if view.report is None else view.report.message:
        shown["message"] = message
    return shown


def wake_last(view: PoolView) -> dict[str, float]:
    """The seconds of each phase of the last wake as ``<phase>_s``, and their sum as ``total_s``."""
    last = {key if key.endswith("_s") else f"{key}_s": round(s, 3) for key, s in view.wake_last.items()}
    if last and "total_s" not in last:
        last["total_s"] = round(sum(last.values()), 3)
    return last


def wake_eta_s(view: PoolView, now_ms: int) -> float | None:
    """Seconds until a group is ready, if the remaining phases take as long as in the last wake."""
    last, phase = wake_last(view), view.wake_phase
    if not last:
        return None
    if f"{phase}_s" in last and view.wake_since_ms is not None:
        this_phase = last[f"{phase}_s"] - max(0.0, (now_ms - view.wake_since_ms) / 1000)
        later = WAKE_PHASES[WAKE_PHASES.index(WakePhase(phase)) + 1 :]
        return round(max(0.0, this_phase) + sum(last.get(f"{name}_s", 0.0) for name in later), 1)
    began_ms = view.report.wake_began_ms if view.report is not None else None
    began_ms = view.wake_since_ms if began_ms is None else began_ms
    elapsed = 0.0 if began_ms is None else (now_ms - began_ms) / 1000
    return round(max(0.0, last["total_s"] - max(0.0, elapsed)), 1)


def task(record: TaskRecord, view: PoolView | None, now_ms: int) -> Json:
    """A task as clients see it (:class:`daybreak.wire.Task`). ``view`` is the view of the task's pool.

    The JSON is built directly and not through the pydantic type. This is faster, and many responses and events
    contain a task.
    """
    waiting = record.state.waiting
    running = record.state is State.RUNNING
    self_path = task_path(record.id)
    fields: Json = {
        "id": record.id,
        "object": "task",
        "pool": record.pool,
        "tenant": record.tenant,
        "state": record.state.public.value,
        "phase": record.phase if running else None,
        "cancel_requested": record.cancel_requested,
        "priority": _PRIORITY[record.priority],
        "attempt": record.attempt,
        "strikes": record.strikes,
        "max_strikes": record.max_strikes,
        "releases": record.releases,
        "resumed_from_step": record.resumed_from_step,
        "progress": _progress(record, running=running),
        "queue": _queue_position(record) if waiting else None,
        "wake": wake(view, now_ms) if waiting else None,
        "input": from_json(record.input_json),
        "metadata": record.metadata,
        "created_at": iso8601(record.created_ms),
        "start_at": _iso8601(record.start_at_ms),
        "started_at": _iso8601(record.started_ms),
        "finished_at": _iso8601(record.finished_ms),
        "expires_at": _iso8601(record.expires_ms),
        "artifacts": [artifact(record.id, ref) for ref in record.artifacts],
        "usage": _usage(record),
        "error": _error(record),
        "replay_of": record.replay_of,
        "traceparent": record.trace_context.traceparent if record.trace_context is not None else None,
        "links": {
            "self": self_path,
            "events": f"{self_path}/events",
            "ws": f"{self_path}/ws",
            "cancel": f"{self_path}/cancel",
        },
    }
    return _without_absent(fields)


def _without_absent(fields: Json) -> Json:
    return {name: value for name, value in fields.items() if value is not None}


def _iso8601(ms: int | None) -> str | None:
    return None if ms is None else iso8601(ms)


def _queue_position(record: TaskRecord) -> Json | None:
    if record.position is None:
        return None
    return _without_absent({"position": record.position, "eta_s": _rounded(record.wait_s)})


def _progress(record: TaskRecord, *, running: bool) -> Json | None:
    if record.fraction is None:
        return None
    if record.state is State.SUCCEEDED:  # The last progress report was sent before the last step was done.
        return _without_absent({"fraction": 1.0, "step": record.steps, "steps": record.steps})
    eta_s = _rounded(record.eta_s) if running else None
    return _without_absent(
        {"fraction": record.fraction, "step": record.step, "steps": record.steps, "eta_s": eta_s}
    )


def _usage(record: TaskRecord) -> Json | None:
    if record.gpu_seconds is None and record.wasted_gpu_seconds is None:
        return None
    return {
        "gpu_seconds": record.gpu_seconds or 0.0,
        "wasted_gpu_seconds": record.wasted_gpu_seconds or 0.0,
    }


def _error(record: TaskRecord) -> Json | None:
    if record.error_code is None:
        return None
    return _without_absent(
        {"code": record.error_code, "message": record.error_message or "", "attempt": record.error_attempt}
    )


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def group(record: GroupRecord, *, admin: bool) -> PoolGroup:
    """A group as clients see it."""
    return PoolGroup(
        id=record.id,
        state=record.state.value,
        phase=None if record.phase == WakePhase.READY else record.phase,
        ranks=record.ranks,
        tasks=list(record.tasks) if admin else None,
        since=to_datetime(record.since_ms or None),
        hosts=list(record.hosts) if admin else None,
        pids=list(record.pids) if admin else None,
        loads=record.loads,
        plan=record.plan or None,
        detail=record.detail or None,
        endpoint=record.endpoint if admin else None,
        models=list(record.models) or None,
        capacity=record.capacity,
        load=None if record.load is None else GroupLoad(**asdict(record.load)),
    )


def pool(
    entry: PoolEntry,
    view: PoolView,
    now_ms: int,
    *,
    admin: bool,
    default_routing: RoutingPolicy,
    sessions: SessionsOverview | None = None,
) -> Pool:
    """A pool as clients see it. Only administrators see the hosts, process ids and endpoints of its groups, and
    the tasks that the groups run, which may belong to other tenants.

    ``default_routing``: the policy of pools for which neither an administrator nor the settings choose one.
    ``sessions``: an overview of the sessions, for a pool of kind ``sessions``.
    """
    online = entry.spec.kind == PoolKind.ONLINE
    groups = [group(record, admin=admin) for record in view.groups[:GROUPS_SHOWN]]
    return Pool(
        name=entry.name,
        workload=entry.spec.name,
        kind=entry.spec.kind,
        queued=view.queued,
        delayed=view.delayed,
        running=view.running,
        oldest_wait_s=_rounded(view.oldest_wait_s),
        requests=view.demand if online else None,
        requests_waiting=max(0, view.demand - _held(view)) if online else None,
        groups_needed=view.wanted if online or sessions is not None else None,
        sessions=None if sessions is None else _sessions(sessions),
        routing=(view.routing or entry.settings.routing or default_routing).value if online else None,
        groups=groups,
        groups_wanted=entry.settings.groups if view.report is None else view.report.wanted,
        groups_max=entry.settings.groups,
        wake=_wake_history(view, now_ms),
        condition=_condition(view),
        input_schema=entry.input_schema,
    )


def _sessions(overview: SessionsOverview) -> PoolSessions:
    measured = [group.measured for group in overview.groups]
    return PoolSessions(
        open=overview.open,
        waiting=overview.waiting,
        lag_ms=max((group.lag_ms for group in measured), default=0.0),
        latency_multiplier=max((group.latency_multiplier for group in measured), default=1),
        full=bool(measured) and all(group.full for group in measured),
    )


def pool_health(entry: PoolEntry, view: PoolView, now_ms: int) -> ServingPoolHealth:
    """The health of a pool of kind ``online`` or ``sessions``: its ready groups, the GPUs of a group, and how long a
    wake takes."""
    settings = entry.settings
    return ServingPoolHealth(
        workload=entry.spec.name,
        model=entry.model_name,
        groups_ready=sum(group.state.accepts_tasks and not group.drain for group in view.groups),
        groups_max=settings.groups,
        gpus_per_group=None if settings.device == "cpu" else settings.ranks * settings.gpus_per_rank,
        wake=_wake_history(view, now_ms),
    )


def _held(view: PoolView) -> int:
    """The number of requests that the groups hold, according to their last reports."""
    loads = [group.load for group in view.groups if group.load is not None and group.state.ready]
    return sum(load.in_flight + load.waiting for load in loads)


def _condition(view: PoolView) -> PoolCondition | None:
    """The condition of the pool's groups: what the operator reports, or, without an operator, a rank's last failure."""
    report = view.report
    if report is not None:
        return PoolCondition(phase=report.phase, reason=report.reason or None, message=report.message or None)
    if view.failure is None:
        return None
    return PoolCondition(reason=view.failure.reason, message=view.failure.message)


def _wake_history(view: PoolView, now_ms: int) -> WakeHistory:
    """The wake of a pool, and the duration of each phase of the last wake.

    Outside a wake, ``eta_s`` is the duration of the whole last wake.
    """
    waking = not has_ready_group(view) and view.wake_phase != WakePhase.ZERO
    total = wake_last(view).get("total_s")
    return WakeHistory(
        phase=view.wake_phase,
        since=to_datetime(view.wake_since_ms) if waking else None,
        last=wake_last(view),
        eta_s=wake_eta_s(view, now_ms) if waking else total,
    )


def event(record: EventRecord) -> Json:
    """A stored event as clients receive it."""
    shown: Json = {
        "id": record.id,
        "task": record.task,
        "type": record.type,
        "at": iso8601(record.at_ms),
        "data": public_data(record.task, record.type, record.data),
    }
    return {**shown, "attempt": record.attempt} if record.attempt else shown


def public_data(task_id: str, kind: str, data: Any) -> dict[str, Any]:
    """An event's data as clients see it, with URLs in place of the keys of files in the store."""
    return paths.public_data(task_id, kind, data, prefix=path_prefix.current())
