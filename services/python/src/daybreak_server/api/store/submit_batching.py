"""Submits that come at the same time go to the store together: one round trip for many.

Each task is still accepted or refused on its own. Nobody waits for company: what has come by the time the
store is free goes at once, so an idle server sends each submit alone and a busy one fills its round trips.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from daybreak_server.domain.tasks import NewTask
from daybreak_server.ports.store_errors import StoreError
from daybreak_server.ports.tasks import Submitted, TaskStore

MAX_BATCH = 64
"""Tasks in one round trip: what a script holds the store up for stays a few milliseconds."""
MAX_IN_FLIGHT = 2
"""Round trips at once: while the store works on one, the next one is on its way."""

_Waiter = asyncio.Future[Submitted]


@dataclass(slots=True)
class _PoolBatch:
    waiting: deque[tuple[NewTask, _Waiter]] = field(default_factory=deque)
    under_way: int = 0


class SubmitBatcher:
    """Submits tasks, those of one pool together."""

    def __init__(self, store: TaskStore) -> None:
        self._store = store
        self._lines: dict[str, _PoolBatch] = {}
        self._trips: set[asyncio.Task[None]] = set()

    async def submit(self, task: NewTask) -> Submitted:
        """The stored task. :raises StoreError: as for a submit of its own.

        A caller that is cancelled may still have submitted: what is on its way is not called back.
        """
        line = self._lines.setdefault(task.pool, _PoolBatch())
        waiter: _Waiter = asyncio.get_running_loop().create_future()
        line.waiting.append((task, waiter))
        if line.under_way < MAX_IN_FLIGHT:
            self._start(line)
        return await waiter

    def _start(self, line: _PoolBatch) -> None:
        line.under_way += 1
        trip = asyncio.create_task(self._trips_of(line))
        self._trips.add(trip)
        trip.add_done_callback(self._trips.discard)

    async def _trips_of(self, line: _PoolBatch) -> None:
        try:
            while batch := _next_batch(line):
                await self._flush(batch)
        finally:
            line.under_way -= 1

    async def _flush(self, batch: Sequence[tuple[NewTask, _Waiter]]) -> None:
        try:
            outcomes: Sequence[Submitted | Exception] = await self._store.submit([task for task, _ in batch])
        except Exception as exc:
            outcomes = [exc] * len(batch)
        for (_, waiter), outcome in zip(batch, outcomes, strict=True):
            if waiter.done():
                continue
            if isinstance(outcome, Exception):
                waiter.set_exception(_own(outcome))
            else:
                waiter.set_result(outcome)


def _next_batch(line: _PoolBatch) -> list[tuple[NewTask, _Waiter]]:
    """Those who are next; not those who have given up."""
    batch: list[tuple[NewTask, _Waiter]] = []
    while line.waiting and len(batch) < MAX_BATCH:
        task, waiter = line.waiting.popleft()
        if not waiter.done():
            batch.append((task, waiter))
    return batch


def _own(exc: Exception) -> Exception:
    """An error of one's own: several callers that raise the same one would add to one traceback."""
    if not isinstance(exc, StoreError):
        return exc
    copy = type(exc)(*exc.args)
    copy.__cause__ = exc.__cause__
    return copy
