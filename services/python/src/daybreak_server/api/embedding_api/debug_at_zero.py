"""What ``GET /debug`` shows of a serving pool without a ready group.

The gateway sends no request to the pool, because a request would start a group. It uses the store's view of the pool,
as ``GET /v1/pools`` does. That adds nothing to the pool's demand, so ``GET /debug`` leaves a pool at zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daybreak_server.api import serializers
from daybreak_server.api.intake.catalog import PoolEntry
from daybreak_server.domain.pools import PoolView
from daybreak_server.settings.batching import BatchingSettings


def debug_at_zero(entry: PoolEntry, view: PoolView, now_ms: int) -> dict[str, Any]:
    """What ``GET /debug`` shows of a pool that has no ready group."""
    health = serializers.pool_health(entry, view, now_ms)
    shown = {"pool": entry.name, **health.model_dump(mode="json", exclude_none=True), "groups_ready": 0}
    if entry.spec.batches:
        shown["batching"] = batching_values(entry, view.batching)
    message = f"No group of the pool {entry.name} is ready. Requests to the pool start groups, but GET /debug does not."
    return {**shown, "message": message}


def batching_values(entry: PoolEntry, changed: Mapping[str, Any]) -> dict[str, Any]:
    """All values of the setting ``batching`` of the pool, with an administrator's changes."""
    return {**(entry.settings.batching or BatchingSettings()).values(), **changed}
