"""The state of the Redis server for metrics, from its INFO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from daybreak_server.ports.measurements import ServerStats


def stats_of(info: Mapping[str, Any]) -> ServerStats:
    """The state, from the reply to INFO. Some managed servers leave values out; these are ``None``."""

    def number(name: str) -> int | None:
        return None if info.get(name) is None else int(info[name])

    main_thread = [info.get(f"used_cpu_{kind}_main_thread") for kind in ("user", "sys")]
    seconds = [float(value) for value in main_thread if value is not None]
    enabled = number("aof_enabled")
    succeeded = all(info.get(f"aof_last_{what}_status", "ok") == "ok" for what in ("write", "bgrewrite"))
    return ServerStats(
        memory_bytes=number("used_memory"),
        memory_limit_bytes=number("maxmemory"),
        cpu_s=sum(seconds) if seconds else None,
        clients=number("connected_clients"),
        aof_enabled=None if enabled is None else bool(enabled),
        aof_healthy=None if enabled is None else bool(enabled) and succeeded,
        aof_bytes=0 if enabled == 0 else number("aof_current_size"),
    )
