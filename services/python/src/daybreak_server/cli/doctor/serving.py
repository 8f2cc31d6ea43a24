"""Checks of ``daybreakd doctor`` for pools that answer requests: their policy, their groups, and a gateway's router."""

from __future__ import annotations

import asyncio
import json
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

from daybreak_server.cli.doctor.check import Check, error, ok, warning
from daybreak_server.domain.kinds import PoolKind
from daybreak_server.domain.pools import GroupRecord, PoolView
from daybreak_server.domain.routing import RoutingPolicy
from daybreak_server.ports.store_errors import StoreError
from daybreak_server.settings.address_format import host_port, reachable, url_of
from daybreak_server.settings.tree import PoolSettings, Settings

TIMEOUT_S = 3.0
GROUPS_MAX = 50
"""How many groups of a pool the check connects to, at most."""


def online_pools(settings: Settings) -> list[str]:
    """The pools of kind ``online``. Another check reports a pool whose workload cannot be found."""
    return [name for name, pool in settings.pools.items() if _kind(pool) == PoolKind.ONLINE]


def demand_pools(settings: Settings) -> list[str]:
    """The pools that KEDA scales by their requests or their open sessions."""
    return [
        name for name, pool in settings.pools.items() if _kind(pool) in (PoolKind.ONLINE, PoolKind.SESSIONS)
    ]


def _kind(pool: PoolSettings) -> PoolKind | None:
    from daybreak_server.settings.pool_workload import workload_spec

    try:
        return PoolKind(workload_spec(pool).kind)
    except Exception:  # a third-party workload may raise anything
        return None


def examine(settings: Settings) -> Iterator[Check]:
    """Check each pool that answers requests, as far as this machine can see it."""
    names = online_pools(settings)
    if not names:
        return
    if settings.redis.url is not None:
        for view in asyncio.run(pool_views(settings, names)):
            yield _policy(settings, view)
            yield from _groups(view)
    for name in names:
        yield from _gateway(settings, name)


async def pool_views(settings: Settings, names: Sequence[str]) -> list[PoolView]:
    """The pools as Redis has them; none if Redis does not answer, which another check reports."""
    from daybreak_server import wiring

    store = wiring.build_store(settings)
    try:
        return [await store.pool(name) for name in names]
    except StoreError:
        return []
    finally:
        await store.close()


def _policy(settings: Settings, view: PoolView) -> Check:
    what = f"policy of {view.name}"
    policy = view.routing or settings.pools[view.name].routing or settings.router.policy
    origin = "set with `daybreakd routing`" if view.routing is not None else "from the settings"
    found = f"{policy.value}, {origin}"
    ready = _ready(view)
    if policy is RoutingPolicy.GPU_MEMORY and ready and not any(_free_memory(group) for group in ready):
        advice = f"use another policy: `daybreakd routing {view.name} least_loaded`"
        return warning(what, f"{found}, but no group reports free GPU memory, so all count as equal", advice)
    return ok(what, found)


def _free_memory(group: GroupRecord) -> int:
    return (group.load.free_memory_bytes or 0) if group.load is not None else 0


def _ready(view: PoolView) -> list[GroupRecord]:
    return [group for group in view.groups if group.endpoint is not None and group.state.ready]


def _groups(view: PoolView) -> Iterator[Check]:
    """Connect to the ready groups, as gateways do."""
    what, ready = f"connections to {view.name}", _ready(view)[:GROUPS_MAX]
    if not ready:
        return
    tried = [(group, connect(group.endpoint or "")) for group in ready]
    problems = [(group, problem) for group, problem in tried if problem is not None]
    if not problems:
        yield ok(what, f"{len(ready)} can be reached from here")
        return
    group, problem = problems[0]
    yield error(
        what,
        f"{len(problems)} of {len(ready)} cannot be reached from here: {group.id} at {group.endpoint}: {problem}",
        "gateways need a connection to each group: check network policies and firewalls between them "
        "(on Kubernetes, only the result from a gateway's pod counts)",
    )


def connect(endpoint: str) -> str | None:
    """Connect to the host and port of a URL. Returns what is wrong; ``None`` if the connection succeeds."""
    address = urlsplit(endpoint)
    try:
        port = address.port or (443 if address.scheme == "https" else 80)
        socket.create_connection((address.hostname or "", port), timeout=TIMEOUT_S).close()
    except OSError as exc:
        return str(exc)
    return None


def _gateway(settings: Settings, pool: str) -> Iterator[Check]:
    """Check that the gateway at the address in the settings serves the pool. Skipped if nothing listens there."""
    host, port = reachable(settings.http.host), settings.http.port
    url = url_of(host, port)
    if not port or connect(url) is not None:
        return
    what, address = f"router of {pool}", host_port(host, port)
    advice = "restart the gateway with these settings, or correct DAYBREAK_HTTP__HOST and DAYBREAK_HTTP__PORT"
    try:
        with urllib.request.urlopen(f"{url}/v1/pools/{pool}", timeout=TIMEOUT_S) as response:  # noqa: S310 - http only
            kind = json.load(response).get("kind")
    except urllib.error.HTTPError as exc:
        yield error(what, f"the server at {address} answers {exc.code} and does not serve this pool", advice)
    except (OSError, ValueError, AttributeError) as exc:
        yield error(what, f"the server at {address} does not answer as a gateway: {exc}", advice)
    else:
        if kind == PoolKind.ONLINE:
            yield ok(what, f"the gateway at {address} serves it")
        else:
            yield error(what, f"the gateway at {address} has a pool of kind {kind} with this name", advice)
