"""``measure.lua``: a pool's totals and the depths of its queue, for metrics."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daybreak_server.adapters.redis import codec
from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.scripts import Call
from daybreak_server.domain.policy import TENANTS_MAX
from daybreak_server.domain.pool_totals import DELETED, OTHER, PoolTotals, QueueDepth, TenantTotals
from daybreak_server.domain.tasks import Priority

_NOT_TOTALS = ("note",)


def encode(keys: Keys) -> Call:
    """Read a pool's totals."""
    return Call("measure", keys, ())


def decode(reply: Any, name: str) -> PoolTotals:
    """The totals. Once ``tenants_max`` tenants have totals of their own, all further tenants count as ``other``."""
    totals, billed, submitted, dead, queued, waiting, oldest, spread = reply
    raw = {field: int(value) for field, value in codec.mapping(totals).items() if field not in _NOT_TOTALS}
    by_tenant = {field: int(value) for field, value in codec.mapping(billed).items()}
    for kind in ("used_ms", "wasted_ms"):
        others = raw.get(f"{OTHER}:{kind}", 0)
        raw[kind] = others + raw.get(f"{DELETED}:{kind}", 0)
        raw[kind] += sum(ms for field, ms in by_tenant.items() if field.endswith(f":{kind}"))
        by_tenant[f"{OTHER}:{kind}"] = others
    queues = [
        (codec.text(tenant), float(codec.text(weight)), list(map(int, counts)))
        for tenant, weight, counts in waiting
    ]
    return PoolTotals(
        name=name,
        submitted=int(submitted),
        raw=raw,
        tenants=_tenants(by_tenant, queues, most=raw.get("tenants_max", TENANTS_MAX)),
        queue=_depths(int(queued), queues, list(map(int, oldest))),
        fairness_error_s=float(codec.text(spread)),
        dead_letters=int(dead),
    )


_Queues = list[tuple[str, float, list[int]]]


def _tenants(billed: Mapping[str, int], queues: _Queues, *, most: int) -> dict[str, TenantTotals]:
    queued = {field.rpartition(":")[0]: 0 for field in billed} | {OTHER: 0}
    weights: dict[str, float] = {}
    for tenant, weight, counts in queues:
        named = tenant in queued or len(queued) - 1 < most
        label = tenant if named else OTHER
        queued[label] = queued.get(label, 0) + sum(counts)
        if label != OTHER:
            weights[label] = weight
    if not (queued[OTHER] or billed[f"{OTHER}:used_ms"] or billed[f"{OTHER}:wasted_ms"]):
        del queued[OTHER]
    return {
        label: TenantTotals(
            used_gpu_seconds=billed.get(f"{label}:used_ms", 0) / 1000,
            wasted_gpu_seconds=billed.get(f"{label}:wasted_ms", 0) / 1000,
            queued=count,
            weight=weights.get(label),
        )
        for label, count in sorted(queued.items())
    }


def _depths(queued: int, queues: _Queues, oldest_ms: list[int]) -> dict[str, QueueDepth]:
    depths = {
        priority.name.lower(): QueueDepth(
            tasks=sum(counts[at] for _, _, counts in queues), oldest_wait_s=max(0, oldest_ms[at]) / 1000
        )
        for at, priority in enumerate(Priority)
    }
    beyond = queued - sum(depth.tasks for depth in depths.values())
    return depths | ({OTHER: QueueDepth(tasks=beyond)} if beyond > 0 else {})
