"""Limits the number of concurrent calls to the store (a bulkhead). Further calls wait, but not forever.

Without the limit, ten thousand streams that reconnect after a restart would open ten thousand connections to the store.
A tick itself does not go through the bulkhead. But after each tick, the ticker reads the pool's view and the queue
positions. These reads go through the bulkhead, so they can delay the next tick.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from daybreak_server.domain.ids import TaskId
from daybreak_server.domain.pools import PoolView
from daybreak_server.domain.tasks import EventRecord, NewTask, State, TaskRecord
from daybreak_server.ports.events import EventLog, EventPage
from daybreak_server.ports.store_errors import StoreError, StoreUnavailableError
from daybreak_server.ports.tasks import Page, Submitted, TaskStore

CALLS = 64
"""How many calls to a store, or to an event log, may run at once. More would only wait inside Redis, which executes one
command at a time."""
QUEUE_TIMEOUT_FACTOR = 3.0
"""How long a call may wait for its turn, as a multiple of the timeout of one call to the store."""


class Bulkhead:
    """Admits a bounded number of calls at once."""

    def __init__(self, *, calls: int, timeout_s: float) -> None:
        self._slots = asyncio.Semaphore(calls)
        self._timeout_s = QUEUE_TIMEOUT_FACTOR * timeout_s

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        """Wait for a slot and hold it. :raises StoreUnavailableError: if none is free in time."""
        if self._slots.locked():
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._slots.acquire()
            except TimeoutError as exc:
                raise StoreUnavailableError("too many requests are waiting for the task store") from exc
        else:
            await self._slots.acquire()
        try:
            yield
        finally:
            self._slots.release()


class BoundedStore:
    """A :class:`TaskStore` whose calls go through a bulkhead."""

    def __init__(self, store: TaskStore, *, timeout_s: float, calls: int = CALLS) -> None:
        self._store = store
        self._bulkhead = Bulkhead(calls=calls, timeout_s=timeout_s)

    async def submit(self, tasks: Sequence[NewTask]) -> list[Submitted | StoreError]:
        """See the port."""
        async with self._bulkhead():
            return await self._store.submit(tasks)

    async def submitted(self, pool: str, tenant: str, *, key: str, body_hash: str) -> Submitted | None:
        """See the port."""
        async with self._bulkhead():
            return await self._store.submitted(pool, tenant, key=key, body_hash=body_hash)

    async def get(self, task: TaskId) -> TaskRecord | None:
        """See the port."""
        async with self._bulkhead():
            return await self._store.get(task)

    async def list(
        self,
        pool: str,
        tenant: str,
        *,
        states: frozenset[State] | None = None,
        after: TaskId | None = None,
        limit: int = 20,
        newest_first: bool = True,
    ) -> Page:
        """See the port."""
        async with self._bulkhead():
            return await self._store.list(
                pool, tenant, states=states, after=after, limit=limit, newest_first=newest_first
            )

    async def cancel(self, task: TaskId, *, reason: str = "requested") -> TaskRecord | None:
        """See the port."""
        async with self._bulkhead():
            return await self._store.cancel(task, reason=reason)

    async def preview(self, task: TaskId) -> tuple[bytes, str] | None:
        """See the port."""
        async with self._bulkhead():
            return await self._store.preview(task)

    async def delete(self, tasks: Sequence[TaskId]) -> int:
        """See the port."""
        async with self._bulkhead():
            return await self._store.delete(tasks)

    async def pool(self, name: str) -> PoolView:
        """See the port."""
        async with self._bulkhead():
            return await self._store.pool(name)


class BoundedEvents:
    """An :class:`EventLog` whose ``read`` goes through a bulkhead. ``tail`` and ``follow`` do not."""

    def __init__(self, events: EventLog, *, timeout_s: float, calls: int = CALLS) -> None:
        self._events = events
        self._bulkhead = Bulkhead(calls=calls, timeout_s=timeout_s)

    async def read(self, task: TaskId, *, after: str | None = None, limit: int = 1000) -> EventPage:
        """See the port."""
        async with self._bulkhead():
            return await self._events.read(task, after=after, limit=limit)

    async def tail(self, pool: str) -> str:
        """See the port."""
        return await self._events.tail(pool)

    def follow(self, pool: str, *, after: str) -> AsyncIterator[Sequence[EventRecord]]:
        """See the port."""
        return self._events.follow(pool, after=after)
