"""``forget.lua`` removes ended tasks, ``preview.lua`` stores previews."""

from __future__ import annotations

from typing import Any

from daybreak_server.adapters.redis.arguments import Preview, Removal
from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.lua.renew import decode as decode_preview
from daybreak_server.adapters.redis.scripts import Call
from daybreak_server.domain.ids import TaskId
from daybreak_server.domain.tasks import Lease
from daybreak_server.ports.store_errors import ConflictError

__all__ = ["decode", "decode_preview", "encode", "encode_preview", "split_preview"]


def encode(keys: Keys, task: TaskId) -> Call:
    """Remove an ended task."""
    return Call("forget", keys, Removal(task=task))


def decode(reply: Any, task: TaskId) -> int:
    """1 if the task existed, otherwise 0. :raises ConflictError: when it has not ended."""
    if int(reply) < 0:
        raise ConflictError(f"{task} has not ended; cancel it first")
    return int(reply)


def encode_preview(keys: Keys, lease: Lease, image: bytes, *, content_type: str, ttl_s: float) -> Call:
    """Replace the task's preview."""
    value = content_type.encode() + b"\0" + image
    preview = Preview(task=lease.task, token=lease.token, ttl_ms=round(ttl_s * 1000), value=value)
    return Call("preview", keys, preview)


def split_preview(stored: bytes) -> tuple[bytes, str]:
    """The image and its content type."""
    content_type, _, image = stored.partition(b"\0")
    return image, content_type.decode()
