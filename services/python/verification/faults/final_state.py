"""What there is when all is over: read through the public API, and from the store and the folder of files.

It goes into the history too, so that a history alone is enough to decide.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import redis

from daybreak.aio import AsyncClient
from daybreak.wire import Task
from daybreak_server.adapters.redis.key_names import Keys
from verification.faults.cluster import FaultCluster
from verification.faults.load import RELAY_GROUP, Load, seen, shown

_AT_ONCE = 16


def read_all(load: Load, *, relay_s: float = 20.0) -> None:
    """Every task, its events, its files; then the store's own books. Call it when all has settled."""
    if load._relay:
        _wait_for_relay(load.cluster, relay_s)
    load.call(_read_api(load))
    for pool in load.cluster.options.pools:
        load.history.note("store", pool=pool.name, **store_facts(load.cluster, pool.name))
    if (files := file_facts(load.cluster)) is not None:
        load.history.note("files", files=files)
    load.history.flush()


def _wait_for_relay(cluster: FaultCluster, timeout_s: float) -> None:
    """Until it has handed out all there is; it may take its time while it moves."""
    with cluster.client() as client:
        for pool in cluster.options.pools:
            key, before, moved = cluster.keys(pool.name).one("events"), None, time.monotonic()
            while client.exists(key) and not _caught_up(client, key):
                (group,) = (one for one in client.xinfo_groups(key) if one["name"] == RELAY_GROUP)
                now = (group["last-delivered-id"], group["pending"])
                if now != before:
                    before, moved = now, time.monotonic()
                if time.monotonic() - moved > timeout_s:
                    raise TimeoutError(f"the relay of {pool.name} stands still at {now}")
                time.sleep(0.1)


def _caught_up(client: redis.Redis, key: str) -> bool:
    (group,) = (one for one in client.xinfo_groups(key) if one["name"] == RELAY_GROUP)
    newest = client.xinfo_stream(key)["last-generated-id"]
    return bool(group["last-delivered-id"] == newest and group["pending"] == 0)


async def _read_api(load: Load) -> None:
    found: list[tuple[str, str]] = []
    for tenant in load.tenants:
        for pool in load.cluster.options.pools:
            async for task in load.readers[tenant].list(pool=pool.name, order="asc"):
                found.append((task.id, tenant))
                load.history.note("final", task=task.id, record=shown(task))
    gate = asyncio.Semaphore(_AT_ONCE)
    listed = {task for task, _ in found}
    unlisted = [(task, tenant) for task, tenant in load.known.items() if task not in listed]
    load.history.note("listed", kind="missing", tasks=[task for task, _ in unlisted])
    await asyncio.gather(*(_read_task(load, gate, task, tenant) for task, tenant in found))


async def _read_task(load: Load, gate: asyncio.Semaphore, task: str, tenant: str) -> None:
    async with gate:
        client: AsyncClient = load.readers[tenant]
        now: Task = await client.get(task)
        if not now.state.terminal:
            return
        events = [seen(event) async for event in client.events(task)]
        load.history.note("stream", task=task, events=events)
        await load.download(task, tenant, [artifact.name for artifact in now.artifacts])


def store_facts(cluster: FaultCluster, pool: str) -> dict[str, Any]:
    """What the store holds of a pool: its books, and keys that belong to nothing."""
    keys = cluster.keys(pool)
    with cluster.client() as client:
        facts: dict[str, Any] = {
            name: client.zrange(keys.one(name), 0, -1)
            for name in (
                "dead",
                "live",
                "leases",
                "tenants",
                "timers",
                "delayed",
                "due_soon",
                "garbage",
                "expiring",
            )
        }
        facts["meta"] = client.hgetall(keys.one("meta"))
        facts["shares"] = client.hgetall(keys.one("shares"))
        facts["weights"] = client.hgetall(keys.one("weights"))
        facts["ledger"] = _ledgers(client, keys)
        facts["families"], facts["strange"] = _families(client, keys)
        facts["usage"] = {
            task: client.hmget(keys.of("task", task), "used_ms", "wasted_ms", "token", "started", "finished")
            for task in facts["families"].get("task", [])
        }
        facts["groups_with_task"] = [
            group
            for group in facts["families"].get("group", [])
            if client.hget(keys.of("group", group), "task") is not None
        ]
        facts["without_ttl"] = [
            member
            for member in facts["families"].get("preview", [])
            if client.ttl(keys.of("preview", member)) < 0
        ]
    return facts


def _ledgers(client: redis.Redis, keys: Keys) -> dict[str, int]:
    total: dict[str, int] = {}
    for key in client.scan_iter(match=f"{keys.base}ledger:*"):
        for name, value in client.hgetall(key).items():
            total[name] = total.get(name, 0) + int(value)
    return total


def _families(client: redis.Redis, keys: Keys) -> tuple[Mapping[str, list[str]], list[str]]:
    families: dict[str, list[str]] = {}
    strange: list[str] = []
    for key in client.scan_iter(match=f"{keys.base}*", count=1000):
        parsed = keys.parse(key)
        if parsed is None:
            strange.append(key)
        else:
            families.setdefault(parsed[0], []).append(parsed[1])
    return families, strange


def file_facts(cluster: FaultCluster) -> list[str] | None:
    """Every file below the folder of files, parts under way too; ``None`` where they are elsewhere."""
    parts = urlsplit(cluster.settings.artifacts.url)
    if parts.scheme != "file":
        return None
    root = Path(unquote(parts.path))
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
