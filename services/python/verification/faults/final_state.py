"""Reads the final state: tasks, events and files through the public API, then the store's keys and, if the blobs are in
a folder, the names of all files in this folder.

All of this is written into the history, so that the checker needs nothing but the history.
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
from daybreak_server.domain.pool_totals import DELETED, OTHER
from verification.faults.cluster import FaultCluster
from verification.faults.load import RELAY_GROUP, Load, event_facts, task_facts

_PARALLEL_READS = 16


def read_all(load: Load, *, relay_s: float = 20.0) -> None:
    """Record every task with its events and files, then each pool's keys and accounts in the store, then the names of
    all files in the blob folder. Call this function when no task changes any more."""
    if load.has_relay:
        _wait_for_relay(load.cluster, relay_s)
    load.call(_read_api(load))
    for pool in load.cluster.options.pools:
        load.history.note("store", pool=pool.name, **store_facts(load.cluster, pool.name))
    if (files := file_facts(load.cluster)) is not None:
        load.history.note("files", files=files)
    load.history.flush()


def _wait_for_relay(cluster: FaultCluster, timeout_s: float) -> None:
    """Wait until the relay has delivered every event. :raises TimeoutError: after ``timeout_s`` without progress."""
    with cluster.client() as client:
        for pool in cluster.options.pools:
            key, before, changed_at = cluster.keys(pool.name).single("events"), None, time.monotonic()
            while client.exists(key) and not _caught_up(client, key):
                group = _relay_group(client, key)
                position = (group["last-delivered-id"], group["pending"])
                if position != before:
                    before, changed_at = position, time.monotonic()
                if time.monotonic() - changed_at > timeout_s:
                    raise TimeoutError(
                        f"the relay of {pool.name} made no progress for {timeout_s:g} s at {position}"
                    )
                time.sleep(0.1)


def _relay_group(client: redis.Redis, key: str) -> dict[str, Any]:
    (group,) = (group for group in client.xinfo_groups(key) if group["name"] == RELAY_GROUP)
    return dict(group)


def _caught_up(client: redis.Redis, key: str) -> bool:
    group = _relay_group(client, key)
    newest = client.xinfo_stream(key)["last-generated-id"]
    return bool(group["last-delivered-id"] == newest and group["pending"] == 0)


async def _read_api(load: Load) -> None:
    listed_tasks: list[tuple[str, str]] = []
    for tenant in load.tenants:
        for pool in load.cluster.options.pools:
            async for task in load.steady_clients[tenant].list(pool=pool.name, order="asc"):
                listed_tasks.append((task.id, tenant))
                load.history.note("final", task=task.id, record=task_facts(task))
    limit = asyncio.Semaphore(_PARALLEL_READS)
    listed = {task for task, _ in listed_tasks}
    unlisted = [(task, tenant) for task, tenant in load.known.items() if task not in listed]
    load.history.note("listed", kind="missing", tasks=[task for task, _ in unlisted])
    await asyncio.gather(*(_read_task(load, limit, task, tenant) for task, tenant in listed_tasks))


async def _read_task(load: Load, limit: asyncio.Semaphore, task: str, tenant: str) -> None:
    async with limit:
        client: AsyncClient = load.steady_clients[tenant]
        current: Task = await client.get(task)
        if not current.state.terminal:
            return
        events = [event_facts(event) async for event in client.events(task)]
        load.history.note("stream", task=task, events=events)
        await load.download(task, tenant, [artifact.name for artifact in current.artifacts])


def store_facts(cluster: FaultCluster, pool: str) -> dict[str, Any]:
    """What the store holds for a pool: its accounts, its indexes and the names of all its keys."""
    keys = cluster.keys(pool)
    with cluster.client() as client:
        facts: dict[str, Any] = {
            name: client.zrange(keys.single(name), 0, -1)
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
        shared = [f"{name}:{kind}" for name in (OTHER, DELETED) for kind in ("used_ms", "wasted_ms")]
        facts["tenant_totals"] = client.hgetall(keys.single("tenant_totals")) | {
            field: ms
            for field, ms in zip(shared, client.hmget(keys.single("totals"), shared), strict=True)
            if ms is not None
        }
        facts["shares"] = client.hgetall(keys.single("shares"))
        facts["weights"] = client.hgetall(keys.single("weights"))
        facts["ledger"] = _ledgers(client, keys)
        facts["families"], facts["unknown_keys"] = _families(client, keys)
        facts["usage"] = {
            task: client.hmget(keys.of("task", task), "used_ms", "wasted_ms", "token", "started", "finished")
            for task in facts["families"].get("task", [])
        }
        facts["groups_with_task"] = [
            group
            for group in facts["families"].get("group", [])
            if client.hget(keys.of("group", group), "tasks") is not None
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
    unknown_keys: list[str] = []
    for key in client.scan_iter(match=f"{keys.base}*", count=1000):
        parsed = keys.parse(key)
        if parsed is None:
            unknown_keys.append(key)
        else:
            families.setdefault(parsed[0], []).append(parsed[1])
    return families, unknown_keys


def file_facts(cluster: FaultCluster) -> list[str] | None:
    """Every file in the blob folder, including unfinished uploads; ``None`` when the blobs are not in a folder."""
    parts = urlsplit(cluster.settings.artifacts.url)
    if parts.scheme != "file":
        return None
    root = Path(unquote(parts.path))
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())
