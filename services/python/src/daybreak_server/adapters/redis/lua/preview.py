"""``preview.lua`` stores the latest preview of a task."""

from __future__ import annotations

from daybreak_server.adapters.redis.arguments import Preview
from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.lua.renew import decode
from daybreak_server.adapters.redis.scripts import Call
from daybreak_server.domain.tasks import Lease

__all__ = ["decode", "encode", "split"]


def encode(keys: Keys, lease: Lease, image: bytes, *, content_type: str, ttl_s: float) -> Call:
    """Replace the task's preview."""
    value = content_type.encode() + b"\0" + image
    preview = Preview(task=lease.task, token=lease.token, ttl_ms=round(ttl_s * 1000), value=value)
    return Call("preview", keys, preview)


def split(stored: bytes) -> tuple[bytes, str]:
    """The image and its content type."""
    content_type, _, image = stored.partition(b"\0")
    return image, content_type.decode()
