"""Sends concurrent submits to the store together, in one call.

Each pool has a queue of submits and at most :data:`MAX_IN_FLIGHT` calls in flight. While fewer are
in flight, a submit starts a call at once, so an idle server sends each submit alone. On a busy server, submits wait in
the queue until a call returns, and the next call takes up to :data:`MAX_BATCH` submits. No submit ever waits for others
to join.

The store still accepts or refuses each task separately, and each caller gets its own result. If the whole call fails,
each of its submits gets the error. A submit whose caller is cancelled while it is queued is left out of the batch.
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
"""Maximum number of tasks in one call of the store. The store submits tasks with a Lua script, and Redis does nothing
else while the script runs. To keep a run to a few ms, it accepts at most ``submit.TASKS_MAX`` tasks. This is half of
``MAX_BATCH``, so a full batch needs two runs."""
MAX_IN_FLIGHT = 2
"""Maximum number of calls in flight for a pool: while the store works on one call, the next is on its way."""

_Waiter = asyncio.Future[Submitted]


@dataclass(slots=True)
class _PoolBatch:
    waiting: deque[tuple[NewTask, _Waiter]] = field(default_factory=deque)
    in_flight: int = 0


class SubmitBatcher:
    """Submits tasks. Concurrent submits to one pool share calls of the store."""

    def __init__(self, store: TaskStore) -> None:
        self._store = store
        self._pools: dict[str, _PoolBatch] = {}
        self._round_trips: set[asyncio.Task[None]] = set()

    async def submit(self, task: NewTask) -> Submitted:
        """Submit a task. :returns: the stored task. :raises StoreError: as for a task that is submitted alone.

        If the caller is cancelled, the task may still be submitted: a batch in flight is not recalled.
        """
        pool = self._pools.setdefault(task.pool, _PoolBatch())
        waiter: _Waiter = asyncio.get_running_loop().create_future()
        pool.waiting.append((task, waiter))
        if pool.in_flight < MAX_IN_FLIGHT:
            self._start(pool)
        return await waiter

    def _start(self, pool: _PoolBatch) -> None:
        pool.in_flight += 1
        round_trip = asyncio.create_task(self._flush_all(pool))
        self._round_trips.add(round_trip)
        round_trip.add_done_callback(self._round_trips.discard)

    async def _flush_all(self, pool: _PoolBatch) -> None:
        try:
            while batch := _next_batch(pool):
                await self._flush(batch)
        finally:
            pool.in_flight -= 1

    async def _flush(self, batch: Sequence[tuple[NewTask, _Waiter]]) -> None:
        try:
            outcomes: Sequence[Submitted | Exception] = await self._store.submit([task for task, _ in batch])
        except Exception as exc:
            outcomes = [exc] * len(batch)
        for (_, waiter), outcome in zip(batch, outcomes, strict=True):
            if waiter.done():
                continue
            if isinstance(outcome, Exception):
                waiter.set_exception(_copy(outcome))
            else:
                waiter.set_result(outcome)


def _next_batch(pool: _PoolBatch) -> list[tuple[NewTask, _Waiter]]:
    """The next submits, without those whose callers were cancelled."""
    batch: list[tuple[NewTask, _Waiter]] = []
    while pool.waiting and len(batch) < MAX_BATCH:
        task, waiter = pool.waiting.popleft()
        if not waiter.done():
            batch.append((task, waiter))
    return batch


def _copy(exc: Exception) -> Exception:
    """Copy an error for a caller. If callers raised the same object, each of them would lengthen its traceback."""
    if not isinstance(exc, StoreError):
        return exc
    copy = type(exc)(*exc.args)
    copy.__cause__ = exc.__cause__
    return copy
