"""Decodes the replies of scripts (flat lists of bytes) into domain values."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from daybreak_server.domain import policy
from daybreak_server.domain.ids import GroupId, TaskId, pool_of
from daybreak_server.domain.pools import GroupRecord, GroupState, WakePhase
from daybreak_server.domain.serving_load import Load
from daybreak_server.domain.tasks import ArtifactRef, EventRecord, Priority, State, TaskRecord
from daybreak_server.domain.tracing import TraceContext


def text(value: Any) -> str:
    """A bulk string as text."""
    return value.decode() if isinstance(value, bytes) else str(value)


def mapping(flat: Sequence[Any]) -> dict[str, str]:
    """A dict from the reply of HGETALL inside a script: name, value, name, value, …"""
    return {text(flat[i]): text(flat[i + 1]) for i in range(0, len(flat), 2)}


_TRACE_KEY = ""
"""The trace context is stored with the metadata, under this key. The metadata's own keys are never empty."""


def trace_text(trace: TraceContext | None) -> str:
    """The stored form of a trace context; empty if there is none."""
    return "" if trace is None else f"{trace.traceparent} {trace.tracestate}".rstrip()


def trace_of(stored: str) -> TraceContext | None:
    """The inverse of :func:`trace_text`."""
    parent, _, state = stored.partition(" ")
    return TraceContext(traceparent=parent, tracestate=state) if parent else None


def join_spec(metadata: Mapping[str, str], trace: TraceContext | None, input_json: str) -> str:
    """The stored form of metadata, trace context and input. The input's text is kept exactly."""
    pairs = dict(metadata)
    if trace is not None:  # a single text, so that an earlier version can show it as metadata
        pairs[_TRACE_KEY] = trace_text(trace)
    return (json.dumps(pairs, separators=(",", ":")) if pairs else "{}") + "\n" + input_json


def split_spec(stored: str) -> tuple[dict[str, str], TraceContext | None, str]:
    """The inverse of :func:`join_spec`."""
    head, _, input_json = stored.partition("\n")
    pairs = json.loads(head) if head not in {"", "{}"} else {}
    return pairs, trace_of(pairs.pop(_TRACE_KEY, "")), input_json


def _int(value: str | None) -> int | None:
    return None if value is None else int(value)


def _float(value: str | None) -> float | None:
    return None if value is None else float(value)


def _seconds(value: str | None) -> float | None:
    return None if value is None else int(value) / 1000


def artifacts_from_json(stored: str) -> tuple[ArtifactRef, ...]:
    """The artifacts that ``settle`` stored."""
    return tuple(ArtifactRef(**item) for item in json.loads(stored))


def task(shown: Sequence[Any]) -> TaskRecord:
    """A task from the reply of the fragment ``_show.lua``."""
    task_id, r, out = TaskId(text(shown[0])), mapping(shown[1]), mapping(shown[3])
    metadata, trace, input_json = split_spec(text(shown[2]))
    position, wait = text(shown[4]), text(shown[5])
    error = json.loads(out.get("error", "{}"))
    state = State(r["state"])
    return TaskRecord(
        id=task_id,
        pool=pool_of(task_id) or "",
        tenant=r["tenant"],
        state=state,
        priority=Priority(int(r["order"]) // policy.PRIORITY_BAND),
        input_json=input_json,
        metadata=metadata,
        trace_context=trace,
        attempt=int(r.get("attempt", 0)),
        strikes=int(r.get("strikes", 0)),
        max_strikes=int(r.get("max_strikes", policy.MAX_STRIKES)),
        releases=int(r.get("releases", 0)),
        phase=r.get("phase"),
        fraction=_float(r.get("fraction")),
        step=_int(r.get("step")),
        steps=_int(r.get("steps")),
        eta_s=_float(r.get("eta_s")),
        resumed_from_step=_int(r.get("resumed_from_step")),
        created_ms=int(r["created"]),
        start_at_ms=_int(r.get("start_at")),
        started_ms=_int(r.get("started")),
        finished_ms=_int(r.get("finished")),
        expires_ms=int(r["finished"]) + int(r["retain"]) if "finished" in r else None,
        cancel_requested="cancel_at" in r,
        artifacts=artifacts_from_json(out.get("artifacts", "[]")),
        gpu_seconds=_seconds(r.get("used_ms")),
        wasted_gpu_seconds=_seconds(r.get("wasted_ms", "0" if "used_ms" in r else None)),
        error_code=error.get("code"),
        error_message=error.get("message"),
        error_attempt=error.get("attempt"),
        replay_of=TaskId(r["replay_of"]) if "replay_of" in r else None,
        position=int(position) if position else None,
        wait_s=float(wait) if wait else None,
        last_event_id=text(shown[6]),
    )


def event(event_id: Any, fields: Mapping[Any, Any]) -> EventRecord:
    """An event from an entry of a pool's stream."""
    values = {text(name): text(value) for name, value in fields.items()}
    return _event(text(event_id), values["type"], values["attempt"], values["data"], TaskId(values["task"]))


def own_event(entry: Any, task_id: TaskId) -> EventRecord:
    """An event from an entry of a task's list, as the fragment ``_history.lua`` writes it."""
    event_id, kind, attempt, data = text(entry).split(" ", 3)
    return _event(event_id, kind, attempt, data, task_id)


def _event(event_id: str, kind: str, attempt: str, data: str, task_id: TaskId) -> EventRecord:
    return EventRecord(
        id=event_id,
        task=task_id,
        type=kind,
        at_ms=int(event_id.partition("-")[0]),
        attempt=int(attempt),
        data=json.loads(data),
    )


def group(name: Any, flat: Sequence[Any]) -> GroupRecord:
    """A group from the record that ``group.lua`` stored."""
    r = mapping(flat)
    return GroupRecord(
        id=GroupId(text(name)),
        state=GroupState(r.get("state", GroupState.IDLE)),
        ranks=int(r.get("ranks", 1)),
        phase=r.get("phase", WakePhase.READY),
        since_ms=int(r.get("since", 0)),
        tasks=tuple(map(TaskId, r.get("tasks", "").split())),
        hosts=tuple(json.loads(r.get("hosts", "[]"))),
        pids=tuple(json.loads(r.get("pids", "[]"))),
        loads=int(r.get("loads", 0)),
        plan=r.get("plan", ""),
        detail=r.get("detail", ""),
        wake=json.loads(r.get("wake", "{}")),
        drain="drain" in r,
        endpoint=r.get("endpoint") or None,
        models=tuple(json.loads(r.get("models") or "[]")),
        capacity=_int(r.get("capacity") or None),
        load=Load(**json.loads(r["load"])) if r.get("load") else None,
    )
