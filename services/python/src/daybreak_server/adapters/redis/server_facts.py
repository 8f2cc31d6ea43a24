"""Facts about a Redis server for ``daybreakd doctor``, which judges them."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Any

from redis.asyncio.sentinel import MasterNotFoundError

from daybreak_server.adapters.redis.client import connect_async, translated
from daybreak_server.adapters.redis.codec import text
from daybreak_server.adapters.redis.endpoint import Endpoint
from daybreak_server.ports.store_errors import StoreError, StoreRefusedError

PINGS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisFacts:
    """Facts about a server. A fact is ``None`` if the server does not give it (managed servers forbid CONFIG)."""

    error: str | None = None
    """Why the server could not be examined at all."""
    refused: bool = False
    """Whether ``error`` means that the server refuses the user or password."""
    no_master: bool = False
    """Whether ``error`` means that no Sentinel knows the master."""
    product: str | None = None
    """``redis`` or ``valkey``."""
    version: str | None = None
    """The product's own version."""
    compatible: tuple[int, int] = (0, 0)
    """The Redis version with which it is compatible. Daybreak needs (7, 0)."""
    maxmemory_policy: str | None = None
    maxmemory_bytes: int | None = None
    """0 means no limit."""
    used_memory_bytes: int | None = None
    appendonly: bool | None = None
    appendfsync: str | None = None
    ping_ms: float | None = None
    """The median of ``PINGS`` pings."""
    replicas: int | None = None
    """Connected replicas."""
    min_replicas: int | None = None
    """The server refuses writes if it has fewer replicas than this."""


async def facts(where: str | Endpoint, *, timeout_s: float = 5.0) -> RedisFacts:
    """Examine the server. Never raises: if the examination fails, ``error`` says why."""
    client = connect_async(where, timeout_s=timeout_s)
    try:
        with translated():
            pings = []
            for _ in range(PINGS):
                began = time.perf_counter()
                await client.ping()
                pings.append((time.perf_counter() - began) * 1000)
            info = await client.info()
        return _facts(info, await _config(client), statistics.median(pings))
    except StoreError as exc:
        return RedisFacts(
            error=str(exc),
            refused=isinstance(exc, StoreRefusedError),
            no_master=isinstance(exc.__cause__, MasterNotFoundError),
        )
    finally:
        await client.aclose()


async def _config(client: Any) -> dict[str, str]:
    try:
        with translated():
            found: dict[str, str] = await client.config_get(
                "maxmemory-policy", "appendfsync", "min-replicas-to-write"
            )
    except StoreError:
        return {}
    return {text(name): text(value) for name, value in found.items()}


def _facts(info: dict[str, Any], config: dict[str, str], ping_ms: float) -> RedisFacts:
    compatible = str(info["redis_version"])
    major, minor = (int(part) for part in compatible.split(".")[:2])
    valkey = "valkey_version" in info
    aof = info.get("aof_enabled")
    return RedisFacts(
        product="valkey" if valkey else "redis",
        version=str(info["valkey_version"]) if valkey else compatible,
        compatible=(major, minor),
        maxmemory_policy=config.get("maxmemory-policy", info.get("maxmemory_policy")),
        maxmemory_bytes=info.get("maxmemory"),
        used_memory_bytes=info.get("used_memory"),
        appendonly=None if aof is None else bool(aof),
        appendfsync=config.get("appendfsync"),
        ping_ms=round(ping_ms, 3),
        replicas=info.get("connected_slaves"),
        min_replicas=int(config["min-replicas-to-write"]) if "min-replicas-to-write" in config else None,
    )


async def sentinels(where: Endpoint) -> dict[str, str | None]:
    """For each Sentinel, ``None`` if it knows the master, otherwise why it cannot be used. Never raises."""
    return {address: await _sentinel(where, address) for address in where.sentinels}


async def _sentinel(where: Endpoint, address: str) -> str | None:
    client = where.sentinel(address)
    try:
        with translated():
            known = await client.sentinel_get_master_addr_by_name(where.sentinel_master)
    except StoreError as exc:
        return str(exc)
    finally:
        await client.aclose()
    return None if known else f"it does not know a master named {where.sentinel_master!r}"
