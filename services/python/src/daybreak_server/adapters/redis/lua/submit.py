"""``submit.lua``: accepts tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from daybreak_server.adapters.redis import codec
from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.scripts import Arg, Call
from daybreak_server.domain.tasks import NewTask, State, TaskRecord
from daybreak_server.ports.store_errors import IdempotencyMismatchError, QueueFullError, StoreError
from daybreak_server.ports.tasks import Submitted

TASKS_MAX = 32
"""Tasks that one call may carry: the server does nothing else meanwhile."""


def encode(keys: Keys, tasks: Sequence[NewTask], *, max_queued: int) -> Call:
    """The call that accepts ``tasks``, one after the other, each unless ``max_queued`` wait already."""
    args: list[Arg] = [max_queued]
    for task in tasks:
        args += _arguments(task)
    return Call("submit", keys, args)


def decode(reply: Any, tasks: Sequence[NewTask]) -> list[Submitted | StoreError]:
    """What came of each; errors are returned, because one of a batch must not hide the others."""
    return [_answer(item, task) for item, task in zip(reply, tasks, strict=True)]


def _arguments(task: NewTask) -> tuple[Arg, ...]:
    key = ""
    if task.idempotency_key is not None:
        key = hashlib.sha256(f"{task.tenant}\n{task.idempotency_key}".encode()).hexdigest()[:32]
    return (
        task.id,
        task.tenant,
        int(task.priority),
        repr(task.cost),
        repr(task.estimate_s),
        repr(task.weight),
        _or_nothing(task.start_at_ms),
        _or_nothing(task.start_within_ms),
        _or_nothing(task.run_within_ms),
        task.max_strikes,
        round(task.retention_s * 1000),
        key,
        task.body_hash[:32],
        task.replay_of or "",
        task.spec_version,
        codec.join_spec(task.metadata, task.trace_context, task.input_json),
    )


def _answer(item: Any, task: NewTask) -> Submitted | StoreError:
    match item[0]:
        case b"new":
            return Submitted(record=_record(item, task))
        case b"known":
            return Submitted(record=codec.task(item[1]))
        case b"replayed":
            return Submitted(record=codec.task(item[1]), replayed=True)
        case b"mismatch":
            return IdempotencyMismatchError(
                f"the key was used for {codec.text(item[1])} with another body; use a new key"
            )
        case _:
            return QueueFullError(f"pool {task.pool} has as many waiting tasks as it may; try again later")


def _record(item: Any, task: NewTask) -> TaskRecord:
    """A new task as ``show`` would tell it: most of it is what was sent."""
    _, created, state, position, wait, event = item
    return TaskRecord(
        id=task.id,
        pool=task.pool,
        tenant=task.tenant,
        state=State.QUEUED if state == b"queued" else State.DELAYED,
        priority=task.priority,
        input_json=task.input_json,
        metadata=dict(task.metadata),
        trace_context=task.trace_context,
        max_strikes=task.max_strikes,
        created_ms=int(created),
        start_at_ms=task.start_at_ms,
        replay_of=task.replay_of,
        position=int(position),
        wait_s=float(wait) if wait else None,
        last_event_id=event.decode(),
    )


def _or_nothing(value: int | None) -> str:
    return "" if value is None else str(value)
