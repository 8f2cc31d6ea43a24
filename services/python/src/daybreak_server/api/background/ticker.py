"""Keeps the queue moving: each gateway ticks each pool every second.

A tick is a script in Redis that queues due tasks, expires tasks, ends attempts whose lease is lost, and lists the
files that can be deleted. The ticker then refreshes the pool's view, updates the pool's metrics and publishes queue
positions to the subscribers of waiting tasks. A separate asyncio task deletes the files, so that a slow blob store
never delays ticks.

All of this is idempotent, so every gateway does it and there is no leader election.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from dataclasses import dataclass, field

from daybreak_server.api.asyncio_tasks import cancel_and_wait
from daybreak_server.api.intake.catalog import PoolViewCache
from daybreak_server.api.streaming.queue_positions import QueuePositions
from daybreak_server.domain.pools import TickReport
from daybreak_server.observability.gateway_metrics import GatewayMetrics
from daybreak_server.ports.blobs import BlobError, Blobs
from daybreak_server.ports.housekeeping import Housekeeper
from daybreak_server.ports.store_errors import StoreError

log = logging.getLogger("daybreak.api.ticker")

AGES_S = 5.0
MAX_ROUNDS = 50
"""The maximum number of ticks in a row without a pause, while there is more to do."""
WAKE_POLL_S = 0.2
_MAX_BACKOFF_S = 5.0
_JITTER = random.Random()


async def report_ages(metrics: GatewayMetrics) -> None:
    """Report how long ago each pool's last tick was, even while a tick hangs. Runs until cancelled."""
    while True:
        metrics.update_ages()
        await asyncio.sleep(AGES_S)


@dataclass(kw_only=True)
class Ticker:
    """Ticks one pool until it is cancelled."""

    pool: str
    housekeeper: Housekeeper
    blobs: Blobs
    pool_views: PoolViewCache
    queue_positions: QueuePositions
    metrics: GatewayMetrics
    every_s: float = 1.0
    _deletion: asyncio.Task[None] | None = field(default=None, init=False)

    async def run(self) -> None:
        """Tick every second until cancelled; back off while ticks fail."""
        failures = 0
        self.metrics.begin_ticks(self.pool)
        try:
            while True:
                failures = 0 if await self._tick_and_publish(failures) else failures + 1
                pause = min(self.every_s * 2**failures, _MAX_BACKOFF_S) if failures else self.every_s
                # The jitter keeps gateways from ticking at the same time.
                await self._sleep(pause * _JITTER.uniform(0.9, 1.1))
        finally:
            if self._deletion is not None:
                await cancel_and_wait(self._deletion)

    async def _sleep(self, pause_s: float) -> None:
        """Sleep until the next tick. During a wake, also publish its phase between ticks: a phase may be short."""
        next_tick_at = asyncio.get_running_loop().time() + pause_s
        while (remaining_s := next_tick_at - asyncio.get_running_loop().time()) > WAKE_POLL_S:
            if not self.queue_positions.is_waking(self.pool):
                break
            await asyncio.sleep(WAKE_POLL_S)
            with suppress(StoreError):  # The next tick reports the error.
                await self.queue_positions.publish_wake(self.pool)
        await asyncio.sleep(max(0.0, remaining_s))

    async def _tick_and_publish(self, failures: int) -> bool:
        try:
            await self.tick()
            self.metrics.pools.update(await self.pool_views.refresh(self.pool))
            await self.queue_positions.publish(self.pool)
        except StoreError as exc:
            self.metrics.record_tick(self.pool, succeeded=False)
            if not failures:
                log.warning("pool %s: cannot tick: %s; retrying", self.pool, exc)
            return False
        except Exception:
            self.metrics.record_tick(self.pool, succeeded=False)
            log.exception("pool %s: the tick failed", self.pool)
            return False
        if failures:
            log.warning("pool %s: ticking again", self.pool)
        return True

    async def tick(self) -> None:
        """Tick once, and then again without a pause while there is more to do. :raises StoreError:"""
        for _ in range(MAX_ROUNDS):
            report = await self.housekeeper.tick(self.pool)
            self.metrics.record_tick(self.pool, succeeded=True)
            self._start_deletion(report)
            if not report.more:
                return

    def _start_deletion(self, report: TickReport) -> None:
        """Delete the files that the tick listed. If a deletion is already running, do nothing: a later tick
        lists these files again."""
        if not (report.garbage or report.retention_due) or (self._deletion and not self._deletion.done()):
            return
        self._deletion = asyncio.create_task(self._delete_files(report), name=f"delete files {self.pool}")

    async def _delete_files(self, report: TickReport) -> None:
        try:
            deleted = [prefix for prefix in report.garbage if await self._delete(prefix)]
            if deleted:
                await self.housekeeper.confirm_deleted(self.pool, deleted)
            expired = [task for task in report.retention_due if await self._delete(f"{task}/")]
            if expired:
                await self.housekeeper.delete(expired)
        except StoreError as exc:
            log.warning(
                "pool %s: stopped deleting files: %s; a later tick resumes the deletion", self.pool, exc
            )
        except Exception:
            log.exception("pool %s: deleting files failed", self.pool)

    async def _delete(self, prefix: str) -> bool:
        try:
            count = await asyncio.to_thread(self.blobs.delete, prefix)
        except BlobError as exc:
            log.warning(
                "pool %s: cannot delete the files below %s: %s; a later tick retries", self.pool, prefix, exc
            )
            return False
        self.metrics.count_deleted_files(self.pool, count)
        return True
