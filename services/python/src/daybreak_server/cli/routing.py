"""``daybreakd routing``: shows or changes the routing policy of a pool while gateways run."""

from __future__ import annotations

import asyncio

from daybreak_server import wiring
from daybreak_server.cli.run import fail
from daybreak_server.domain.kinds import PoolKind
from daybreak_server.domain.routing import RoutingPolicy
from daybreak_server.local.embedded_valkey import url_in
from daybreak_server.ports.store_errors import StoreError
from daybreak_server.settings.pool_workload import workload_spec
from daybreak_server.settings.tree import Settings

DEFAULT = "default"


def change(settings: Settings, pool: str, policy: str | None) -> str:
    """Set the policy, if one is given. Returns a line that says which policy is in force."""
    if pool not in settings.pools:
        fail((f"there is no pool {pool!r}; the settings have: {', '.join(settings.pools)}",), code=2)
    if workload_spec(settings.pools[pool]).kind != PoolKind.ONLINE:
        fail((f"the pool {pool} answers no requests, so it has no routing policy",), code=2)
    if policy not in (None, DEFAULT, *RoutingPolicy):
        fail((f"there is no policy {policy!r}; use one of: {', '.join(RoutingPolicy)}, {DEFAULT}",), code=2)
    if settings.redis.url is None:
        settings = _with_embedded(settings)
    try:
        stored = asyncio.run(_change(settings, pool, policy))
    except StoreError as exc:
        fail((f"cannot use Redis: {exc}",), code=1)
    if stored is not None:
        return f"{pool}: {stored.value}, set with `daybreakd routing`"
    configured = settings.pools[pool].routing or settings.router.policy
    return f"{pool}: {configured.value}, from the settings"


def _with_embedded(settings: Settings) -> Settings:
    """The settings with the URL of the Valkey that ``up`` or ``dev`` has started in the same ``data_dir``."""
    url = url_in(settings.data_dir)
    if url is None:
        fail(
            (
                f"`routing` changes the policy in Redis, and no instance has run in {settings.data_dir}: set "
                "DAYBREAK_REDIS__URL, or DAYBREAK_DATA_DIR to the folder of `daybreakd up`",
            ),
            code=2,
        )
    return settings.model_copy(update={"redis": settings.redis.model_copy(update={"url": url})})


async def _change(settings: Settings, pool: str, policy: str | None) -> RoutingPolicy | None:
    store = wiring.build_store(settings)
    try:
        if policy is not None:
            await store.set_routing(pool, None if policy == DEFAULT else RoutingPolicy(policy))
        return (await store.pool(pool)).routing
    finally:
        await store.close()
