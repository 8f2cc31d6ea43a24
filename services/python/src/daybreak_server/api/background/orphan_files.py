"""Deletes files of tasks that the task store does not know.

A store that lost its last second in a power cut has forgotten tasks whose files still exist. Such a file is deleted
when the pool's retention plus one day have passed since its task was submitted. The retention of a task begins when the
task ends. If the task ended within a day of its submission, its retention has ended by then. So even
if the store is empty by mistake, only files of tasks that took longer than a day are deleted too early.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from daybreak_server.domain.ids import TaskId, made_at_ms, pool_of
from daybreak_server.ports.blobs import BlobError, Blobs, probed_at_ms
from daybreak_server.ports.store_errors import StoreError
from daybreak_server.ports.tasks import TaskStore

log = logging.getLogger("daybreak.api.orphans")

EVERY_S = 86_400.0
MARGIN_S = 86_400.0
_DRAW = random.Random()


@dataclass(frozen=True, slots=True, kw_only=True)
class OrphanFileSweeper:
    """Checks all files about once a day. Several gateways may check at the same time."""

    retention_s: Mapping[str, float]
    """The retention of each pool's tasks."""
    store: TaskStore
    blobs: Blobs
    now_ms: Callable[[], int]

    async def run(self) -> None:
        """Check each day until cancelled; the first check is at a random time within a day."""
        await asyncio.sleep(_DRAW.uniform(0.02, 1) * EVERY_S)
        while True:
            try:
                removed = await self.sweep()
                if removed:
                    log.warning(
                        "deleted the files of %d tasks that the task store does not know", len(removed)
                    )
            except (StoreError, BlobError) as exc:
                log.warning("cannot check for files without a task: %s; the next check is in a day", exc)
            except Exception:
                log.exception("the check for files without a task failed; the next check is in a day")
            await asyncio.sleep(EVERY_S)

    async def sweep(self) -> list[TaskId]:
        """Check once. :returns: the tasks whose files were deleted. :raises StoreError: :raises BlobError:"""
        removed = []
        for task in await asyncio.to_thread(self._past_retention):
            if await self.store.get(task) is None:
                await asyncio.to_thread(self.blobs.delete, f"{task}/")
                removed.append(task)
        return removed

    def _past_retention(self) -> list[TaskId]:
        """The tasks that have files, and were submitted longer ago than their pool's retention plus one day.

        Also deletes probe files that are a day old: the process that wrote such a file died before it could delete it.
        """
        found: dict[TaskId, None] = {}
        for blob in self.blobs.list(""):
            probed_ms = probed_at_ms(blob.key)
            if probed_ms is not None and probed_ms + MARGIN_S * 1000 < self.now_ms():
                self.blobs.delete(blob.key)
            task = TaskId(blob.key.partition("/")[0])
            kept_s = self.retention_s.get(pool_of(task) or "")
            if kept_s is not None and made_at_ms(task) + (kept_s + MARGIN_S) * 1000 < self.now_ms():
                found[task] = None
        return list(found)
