"""``delete.lua`` deletes ended tasks."""

from __future__ import annotations

from typing import Any

from daybreak_server.adapters.redis.arguments import Deletion
from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.scripts import Call
from daybreak_server.domain.ids import TaskId
from daybreak_server.ports.store_errors import ConflictError

__all__ = ["decode", "encode"]


def encode(keys: Keys, task: TaskId) -> Call:
    """Delete an ended task."""
    return Call("delete", keys, Deletion(task=task))


def decode(reply: Any, task: TaskId) -> int:
    """1 if the task existed, otherwise 0. :raises ConflictError: if the task has not ended."""
    if int(reply) < 0:
        raise ConflictError(f"{task} has not ended; cancel it first")
    return int(reply)
