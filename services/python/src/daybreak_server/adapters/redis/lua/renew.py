"""``renew.lua``: extends a lease."""

from __future__ import annotations

from typing import Any

from daybreak_server.adapters.redis.arguments import Renewal
from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.scripts import Call
from daybreak_server.domain.tasks import Control, Lease


def encode(keys: Keys, lease: Lease) -> Call:
    """Let ``lease`` last its full length from now."""
    renewal = Renewal(task=lease.task, token=lease.token, lease_ms=round(lease.lease_s * 1000))
    return Call("renew", keys, renewal)


def decode(reply: Any) -> Control:
    """The control bits."""
    return Control(int(reply))
