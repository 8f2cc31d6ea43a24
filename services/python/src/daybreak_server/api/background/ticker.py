"""Keeps the queue moving: each gateway ticks each pool each second, and deletes the files that ticks name.

Everything here is idempotent, so any number of gateways may do it at once and none is elected.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from daybreak_server.api.cancellation import ended
from daybreak_server.api.store.catalog import PoolViewCache
from daybreak_server.api.streaming.queue_positions import QueuePositions
from daybreak_server.domain.ids import TaskId
from daybreak_server.domain.pools import TickReport
from daybreak_server.observability.gateway_metrics import GatewayMetrics
from daybreak_server.ports.blobs import BlobError, Blobs
from daybreak_server.ports.housekeeping import Housekeeper
from daybreak_server.ports.store_errors import StoreError

log = logging.getLogger("daybreak.api.ticker")

MAX_ROUNDS = 50
"""Ticks that may follow each other at once when there is a lot to do."""
WAKE_POLL_S = 0.2
_MAX_BACKOFF_S = 5.0
_JITTER = random.Random()


@dataclass(kw_only=True)
class Ticker:
    """Ticks one pool until it is cancelled."""

    pool: str
    housekeeper: Housekeeper
    blobs: Blobs
    numbers: PoolViewCache
    places: QueuePositions
    metrics: GatewayMetrics
    every_s: float = 1.0
    _sweep: asyncio.Task[None] | None = field(default=None, init=False)

    async def run(self) -> None:
        """Tick each second; wait longer while the store is away."""
        failures = 0
        try:
            while True:
                failures = 0 if await self._second(failures) else failures + 1
                pause = min(self.every_s * 2**failures, _MAX_BACKOFF_S) if failures else self.every_s
                await self._rest(pause * _JITTER.uniform(0.9, 1.1))  # gateways spread out by themselves
        finally:
            if self._sweep is not None:
                await ended(self._sweep)

    async def _rest(self, pause_s: float) -> None:
        """Until the next tick. While a group is on its way it looks more often: a phase may be short."""
        until = asyncio.get_running_loop().time() + pause_s
        while (left_s := until - asyncio.get_running_loop().time()) > WAKE_POLL_S:
            if not self.places.waking(self.pool):
                break
            await asyncio.sleep(WAKE_POLL_S)
            with suppress(StoreError):  # the next tick says so
                await self.places.look(self.pool)
        await asyncio.sleep(max(0.0, left_s))

    async def _second(self, failures: int) -> bool:
        try:
            await self.tick()
            self.metrics.pools.saw(await self.numbers.refresh(self.pool))
            await self.places.round(self.pool)
        except StoreError as exc:
            self.metrics.ticks.labels(self.pool, "failed").inc()
            if not failures:
                log.warning("pool %s: cannot tick: %s", self.pool, exc)
            return False
        except Exception:
            self.metrics.ticks.labels(self.pool, "failed").inc()
            log.exception("pool %s: the tick failed", self.pool)
            return False
        if failures:
            log.warning("pool %s: ticks again", self.pool)
        return True

    async def tick(self) -> None:
        """One tick, and at once the next ones while there is more to do. :raises StoreError:"""
        for _ in range(MAX_ROUNDS):
            report = await self.housekeeper.tick(self.pool)
            self.metrics.ticks.labels(self.pool, "done").inc()
            self.metrics.pools.ticked(self.pool)
            self._start_sweep(report)
            if not report.more:
                return

    def _start_sweep(self, report: TickReport) -> None:
        """Delete files aside, so that a slow store of files never holds the queue up. What is not deleted
        now is named again by a later tick."""
        if not (report.garbage or report.retention_due) or (self._sweep and not self._sweep.done()):
            return
        self._sweep = asyncio.create_task(self._sweep_files(report), name=f"sweep {self.pool}")

    async def _sweep_files(self, report: TickReport) -> None:
        try:
            confirm_deleted = [prefix for prefix in report.garbage if await self._deleted(prefix)]
            if confirm_deleted:
                await self.housekeeper.confirm_deleted(self.pool, confirm_deleted)
            ended = [task for task in report.retention_due if await self._deleted(f"{task}/")]
            await self._forget(ended)
        except StoreError as exc:
            log.warning("pool %s: the sweep stops: %s", self.pool, exc)
        except Exception:
            log.exception("pool %s: the sweep failed", self.pool)

    async def _forget(self, tasks: Sequence[TaskId]) -> None:
        if tasks:
            await self.housekeeper.forget(tasks)

    async def _deleted(self, prefix: str) -> bool:
        try:
            count = await asyncio.to_thread(self.blobs.delete, prefix)
        except BlobError as exc:
            log.warning("pool %s: cannot delete the files below %s: %s", self.pool, prefix, exc)
            return False
        self.metrics.swept.labels(self.pool).inc(count)
        return True
