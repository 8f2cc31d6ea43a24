"""``daybreakd routing``: shows or changes the routing policy of a pool while gateways run."""

from __future__ import annotations

import asyncio

from daybreak_server import wiring
from daybreak_server.cli.run import fail
from daybreak_server.domain.kinds import PoolKind
from daybreak_server.domain.routing import RoutingPolicy
from daybreak_server.ports.store_errors import StoreError
from daybreak_server.settings.tree import Settings

DEFAULT = "default"


def change(settings: Settings, pool: str, policy: str | None) -> str:
    """Set the policy, if one is given. Returns a line that says which one holds."""
    if pool not in settings.pools:
        fail((f"there is no pool {pool!r}; the settings have: {', '.join(settings.pools)}",), code=2)
    if wiring.workload_spec(settings.pools[pool]).kind != PoolKind.ONLINE:
        fail((f"the pool {pool} answers no requests, so it has no routing policy",), code=2)
    if policy not in (None, DEFAULT, *RoutingPolicy):
        fail((f"there is no policy {policy!r}; use one of: {', '.join(RoutingPolicy)}, {DEFAULT}",), code=2)
    if settings.redis.url is None:
        fail(("`routing` changes the policy in Redis: set DAYBREAK_REDIS__URL",), code=2)
    try:
        stored = asyncio.run(_change(settings, pool, policy))
    except StoreError as exc:
        fail((f"cannot reach Redis: {exc}",), code=1)
    if stored is not None:
        return f"{pool}: {stored.value}, set with `daybreakd routing`"
    configured = settings.pools[pool].routing or settings.router.policy
    return f"{pool}: {configured.value}, from the settings"


async def _change(settings: Settings, pool: str, policy: str | None) -> RoutingPolicy | None:
    store = wiring.build_store(settings)
    try:
        if policy is not None:
            await store.set_routing(pool, None if policy == DEFAULT else RoutingPolicy(policy))
        return (await store.pool(pool)).routing
    finally:
        await store.close()
