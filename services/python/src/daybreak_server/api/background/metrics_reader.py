"""Reads the metrics of the pools and of Redis when a client requests ``/metrics``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from daybreak_server.api.intake.catalog import PoolViewCache
from daybreak_server.observability.gateway_metrics import GatewayMetrics
from daybreak_server.ports.measurements import Measurements, ServerStats
from daybreak_server.ports.sessions import SessionStore
from daybreak_server.ports.store_errors import StoreError, StoreUnavailableError

log = logging.getLogger("daybreak.api.metrics")

FRESH_S = 1.0
"""A reading is reused for this long, however often ``/metrics`` is requested."""
TIMEOUT_S = 3.0
"""How long a reading may take. After that, ``/metrics`` shows the values of the last reading. Prometheus itself gives
up after 10 s by default, and old values are worth more than none."""


@dataclass(kw_only=True)
class MetricsReader:
    """Brings the metrics of the pools up to date.

    If Redis does not answer, gauges keep their values for a minute, and totals for an hour.
    """

    pools: Iterable[str]
    pool_views: PoolViewCache
    measurements: Measurements
    sessions: Mapping[str, SessionStore] = field(default_factory=dict)
    """For each pool of kind ``sessions``, by its name: the store of its sessions."""
    metrics: GatewayMetrics
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock, init=False)
    _read_at: float = field(default=float("-inf"), init=False)
    _refused: bool = field(default=False, init=False)
    """Whether Redis has refused INFO. Only the first refusal is logged."""

    async def refresh(self) -> None:
        """Read all pools and the state of Redis, unless the last reading is fresh. Never raises."""
        async with self._lock:
            loop = asyncio.get_running_loop()
            if loop.time() - self._read_at < FRESH_S:
                return
            stats, up = None, False
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await asyncio.gather(*(self._read_pool(pool) for pool in self.pools))
                    stats, up = await self._read_server(), True
            except (StoreError, TimeoutError) as exc:
                log.debug("the metrics of the pools are those of the last reading: %s", exc)
            except Exception:
                log.exception("the metrics of the pools cannot be read")
            finally:  # even after a failure, so that scrapes that waited for the lock do not try again
                self._read_at = loop.time()
                self.metrics.pools.update_server(stats, up=up)

    async def _read_server(self) -> ServerStats | None:
        """The state of Redis; ``None`` if it does not allow INFO, as on some managed servers."""
        try:
            return await self.measurements.server_stats()
        except StoreUnavailableError:
            raise
        except StoreError as exc:
            if not self._refused:
                log.warning("there are no metrics of Redis's memory, clients and append-only file: %s", exc)
            self._refused = True
            return None

    async def _read_pool(self, pool: str) -> None:
        self.metrics.pools.update_totals(await self.measurements.measure(pool))
        self.metrics.pools.update(await self.pool_views.get(pool))
        if pool in self.sessions:
            self.metrics.pools.update_sessions(pool, await self.sessions[pool].sessions_overview(pool))
