"""``submit.lua``: accepts a task."""

from __future__ import annotations

import hashlib
from typing import Any

from daybreak_server.adapters.redis import records
from daybreak_server.adapters.redis.keys import Keys
from daybreak_server.adapters.redis.scripts import Call
from daybreak_server.domain.tasks import NewTask
from daybreak_server.ports.store import IdempotencyMismatchError, QueueFullError, StoreError, Submitted


def encode(keys: Keys, task: NewTask, *, max_queued: int) -> Call:
    """The call that accepts ``task`` unless ``max_queued`` tasks wait already."""
    key = ""
    if task.idempotency_key is not None:
        key = hashlib.sha256(f"{task.tenant}\n{task.idempotency_key}".encode()).hexdigest()[:32]
    return Call(
        "submit",
        keys,
        (
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
            records.join_spec(task.metadata, task.input_json),
            max_queued,
        ),
    )


def decode(reply: Any, task: NewTask) -> Submitted | StoreError:
    """What came of it; errors are returned, because one of a batch must not hide the others."""
    match records.text(reply[0]):
        case "new":
            return Submitted(record=records.task(reply[1]))
        case "replayed":
            return Submitted(record=records.task(reply[1]), replayed=True)
        case "mismatch":
            return IdempotencyMismatchError(
                f"the key was used for {records.text(reply[1])} with another body; use a new key"
            )
        case _:
            return QueueFullError(f"pool {task.pool} has as many waiting tasks as it may; try again later")


def _or_nothing(value: int | None) -> str:
    return "" if value is None else str(value)
