"""What metrics read from the task store: totals of pools, and the state of the server itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from daybreak_server.domain.pool_totals import PoolTotals


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStats:
    """The server that stores the tasks."""

    memory_bytes: int = 0
    memory_limit_bytes: int = 0
    """0: no limit."""
    cpu_s: float | None = None
    """CPU time of the thread that runs all scripts; ``None`` if the server does not say."""
    clients: int = 0
    aof_enabled: bool = False
    aof_healthy: bool = False
    """Whether the last write and the last rewrite of the append-only file succeeded."""
    aof_bytes: int = 0


class Measurements(Protocol):
    """Read when metrics are read. All methods raise :class:`StoreUnavailableError`."""

    async def measure(self, pool: str) -> PoolTotals:
        """The pool's totals, and the depths of its queue now."""

    async def server_stats(self) -> ServerStats:
        """The state of the server."""
