"""``renew.lua``: extends a lease."""

from __future__ import annotations

from typing import Any

from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.scripts import Call
from daybreak_server.domain.tasks import Control, Lease


def encode(keys: Keys, lease: Lease) -> Call:
    """Extend ``lease`` by its own length from now."""
    return Call("renew", keys, (lease.task, lease.token, round(lease.lease_s * 1000)))


def decode(reply: Any) -> Control:
    """The control bits."""
    return Control(int(reply))
