"""The values of metrics that come from the task store: totals of pools, and the state of the server itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from daybreak_server.domain.pool_totals import PoolTotals


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStats:
    """Facts about the server that stores the tasks. A fact is ``None`` if the server does not report it."""

    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None
    """0: no limit."""
    cpu_s: float | None = None
    """CPU time of the thread that runs all scripts."""
    clients: int | None = None
    aof_enabled: bool | None = None
    aof_healthy: bool | None = None
    """Whether the last write and the last rewrite of the append-only file succeeded."""
    aof_bytes: int | None = None


class Measurements(Protocol):
    """Reads the values of metrics when they are scraped.

    All methods raise :class:`StoreUnavailableError` when the store cannot be reached.
    """

    async def measure(self, pool: str) -> PoolTotals:
        """The pool's totals, and the present depth of its queue for each priority."""

    async def server_stats(self) -> ServerStats:
        """The state of the server. :raises StoreError: if the server refuses the command."""
