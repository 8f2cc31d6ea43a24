"""The state of the Redis server for metrics, from its INFO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daybreak_server.ports.measurements import ServerStats


def stats_of(info: Mapping[str, Any]) -> ServerStats:
    """The state, from the reply to INFO. Managed servers leave some lines out."""
    main_thread = [info.get(f"used_cpu_{kind}_main_thread") for kind in ("user", "sys")]
    seconds = [float(value) for value in main_thread if value is not None]
    enabled = bool(int(info.get("aof_enabled", 0)))
    return ServerStats(
        memory_bytes=int(info.get("used_memory", 0)),
        memory_limit_bytes=int(info.get("maxmemory", 0)),
        cpu_s=sum(seconds) if seconds else None,
        clients=int(info.get("connected_clients", 0)),
        aof_enabled=enabled,
        aof_healthy=enabled
        and info.get("aof_last_write_status", "ok") == "ok"
        and info.get("aof_last_bgrewrite_status", "ok") == "ok",
        aof_bytes=int(info.get("aof_current_size", 0)),
    )
