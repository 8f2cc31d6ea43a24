"""``submit.lua``: accepts tasks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

from daybreak_server.adapters.redis import codec
from daybreak_server.adapters.redis.arguments import Submission, SubmitLimit
from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.scripts import Arg, Call
from daybreak_server.domain.tasks import NewTask, State, TaskRecord
from daybreak_server.ports.store_errors import IdempotencyMismatchError, QueueFullError, StoreError
from daybreak_server.ports.tasks import Submitted

TASKS_MAX = 32
"""The maximum number of tasks in one call. There is a limit, because Redis does nothing else while a script runs."""

_HASH_LENGTH = 32


def encode(keys: Keys, tasks: Sequence[NewTask], *, max_queued: int) -> Call:
    """Accept ``tasks``, one after the other, as long as fewer than ``max_queued`` tasks of the pool wait."""
    args: list[Arg] = list(SubmitLimit(max_queued=max_queued))
    for task in tasks:
        args += _submission(task)
    return Call("submit", keys, args)


def decode(reply: Any, tasks: Sequence[NewTask]) -> list[Submitted | StoreError]:
    """The result for each task. Errors are returned, not raised, so that one error does not hide the other results."""
    return [_result(item, task) for item, task in zip(reply, tasks, strict=True)]


def hash_of_key(tenant: str, key: str) -> str:
    """The name under which the task of an idempotency key is stored."""
    return hashlib.sha256(f"{tenant}\n{key}".encode()).hexdigest()[:_HASH_LENGTH]


def task_of_key(stored: bytes, body_hash: str) -> str:
    """The id of the task that is stored for a key. :raises IdempotencyMismatchError: if the body differs."""
    task, _, stored_body = stored.decode().partition(" ")
    if stored_body != body_hash[:_HASH_LENGTH]:
        raise _mismatch(task)
    return task


def _submission(task: NewTask) -> Submission:
    key_hash = "" if task.idempotency_key is None else hash_of_key(task.tenant, task.idempotency_key)
    return Submission(
        task=task.id,
        tenant=task.tenant,
        priority=int(task.priority),
        cost=repr(task.cost),
        estimate_s=repr(task.estimate_s),
        weight=repr(task.weight),
        start_at=_optional(task.start_at_ms),
        start_within=_optional(task.start_within_ms),
        run_within=_optional(task.run_within_ms),
        max_strikes=task.max_strikes,
        retention_ms=round(task.retention_s * 1000),
        idempotency_hash=key_hash,
        body_hash=task.body_hash[:_HASH_LENGTH],
        replay_of=task.replay_of or "",
        spec_version=task.spec_version,
        spec=codec.join_spec(task.metadata, task.trace_context, task.input_json),
    )


def _result(item: Any, task: NewTask) -> Submitted | StoreError:
    match item[0]:
        case b"new":
            return Submitted(record=_record(item, task))
        case b"known":
            return Submitted(record=codec.task(item[1]))
        case b"repeated":
            return Submitted(record=codec.task(item[1]), repeated=True)
        case b"mismatch":
            return _mismatch(codec.text(item[1]))
        case _:
            return QueueFullError(f"the queue of pool {task.pool} is full; retry later")


def _mismatch(task: str) -> IdempotencyMismatchError:
    return IdempotencyMismatchError(
        f"the idempotency key was used for {task} with another body; use a new key"
    )


def _record(item: Any, task: NewTask) -> TaskRecord:
    """A new task as ``show`` would return it. Most of its fields are those that were submitted."""
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


def _optional(value: int | None) -> str:
    return "" if value is None else str(value)
