"""``tick.lua``: the periodic work on a pool's queue."""

from __future__ import annotations

from typing import Any

from daybreak_server.adapters.redis import codec
from daybreak_server.adapters.redis.arguments import TickLimit
from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.scripts import Call
from daybreak_server.domain.ids import TaskId
from daybreak_server.domain.policy import TENANTS_MAX
from daybreak_server.domain.pools import TickReport

LIMIT = 200
"""The maximum number of items of each kind that one call handles."""


def encode(
    keys: Keys, *, limit: int = LIMIT, tenants_max: int = TENANTS_MAX, target_load: float | None = None
) -> Call:
    """One tick. ``tenants_max``: how many tenants may have totals of their own.

    ``target_load``: the requests or sessions that one group should have; ``None`` for a pool of kind ``jobs``.
    """
    load = "" if target_load is None else target_load
    return Call("tick", keys, TickLimit(limit=limit, tenants_max=tenants_max, target_load=load))


def decode(reply: Any) -> TickReport:
    """What the tick did, and which files to delete."""
    promoted, reaped, expired, retention, garbage, more = reply
    return TickReport(
        promoted=int(promoted),
        reaped=int(reaped),
        expired=int(expired),
        retention_due=tuple(TaskId(codec.text(task)) for task in retention),
        garbage=tuple(codec.text(prefix) for prefix in garbage),
        more=bool(more),
    )
