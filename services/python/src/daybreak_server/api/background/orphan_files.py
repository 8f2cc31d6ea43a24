"""Files that belong to no task: what a store of tasks that lost its last second (a power cut) has forgotten.

A file whose task is not in the store is deleted once the task would be gone anyway: its pool's retention and a day
after it was handed in. So a store that is empty by mistake costs no file that was to be kept.
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
class Orphans:
    """Looks through all files about once a day. Any number of gateways may do so at once."""

    retention_s: Mapping[str, float]
    """By pool."""
    store: TaskStore
    blobs: Blobs
    now_ms: Callable[[], int]

    async def run(self) -> None:
        """Until it is cancelled; the first time within a day."""
        await asyncio.sleep(_DRAW.uniform(0.02, 1) * EVERY_S)
        while True:
            try:
                removed = await self.sweep()
                if removed:
                    log.warning("deleted the files of %d tasks that the store does not know", len(removed))
            except (StoreError, BlobError) as exc:
                log.warning("the search for files without a task stops: %s", exc)
            except Exception:
                log.exception("the search for files without a task failed")
            await asyncio.sleep(EVERY_S)

    async def sweep(self) -> list[TaskId]:
        """The tasks whose files were deleted. :raises StoreError: :raises BlobError:"""
        removed = []
        for task in await asyncio.to_thread(self._old):
            if await self.store.get(task) is None:
                await asyncio.to_thread(self.blobs.delete, f"{task}/")
                removed.append(task)
        return removed

    def _old(self) -> list[TaskId]:
        """Tasks that have files and are old enough to be gone, in order. What a probe that died has left goes."""
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
