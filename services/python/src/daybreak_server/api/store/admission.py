"""The store behind a door: so many calls at once; the others wait their turn, but not for ever.

Without it, a burst (ten thousand streams that come back after a restart) would ask for as many connections.
Housekeeping does not pass this door, so the queue keeps moving however long the line before it is.
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
"""Calls at once: more would only wait inside the store, which does one thing after the other."""
QUEUE_TIMEOUT_FACTOR = 3.0
"""How often the time that one call may take may be spent in the line before it."""


class Bulkhead:
    """Lets so many in. :raises StoreUnavailableError: when the wait is over before one's turn."""

    def __init__(self, *, calls: int, timeout_s: float) -> None:
        self._turns = asyncio.Semaphore(calls)
        self._timeout_s = QUEUE_TIMEOUT_FACTOR * timeout_s

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[None]:
        """A turn."""
        if self._turns.locked():
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._turns.acquire()
            except TimeoutError as exc:
                raise StoreUnavailableError("too many requests wait for the store") from exc
        else:
            await self._turns.acquire()
        try:
            yield
        finally:
            self._turns.release()


class BoundedStore:
    """A :class:`TaskStore` behind a door."""

    def __init__(self, store: TaskStore, *, timeout_s: float, calls: int = CALLS) -> None:
        self._store = store
        self._turn = Bulkhead(calls=calls, timeout_s=timeout_s)

    async def submit(self, tasks: Sequence[NewTask]) -> list[Submitted | StoreError]:
        """As the port says."""
        async with self._turn():
            return await self._store.submit(tasks)

    async def get(self, task: TaskId) -> TaskRecord | None:
        """As the port says."""
        async with self._turn():
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
        """As the port says."""
        async with self._turn():
            return await self._store.list(
                pool, tenant, states=states, after=after, limit=limit, newest_first=newest_first
            )

    async def cancel(self, task: TaskId, *, reason: str = "requested") -> TaskRecord | None:
        """As the port says."""
        async with self._turn():
            return await self._store.cancel(task, reason=reason)

    async def preview(self, task: TaskId) -> tuple[bytes, str] | None:
        """As the port says."""
        async with self._turn():
            return await self._store.preview(task)

    async def forget(self, tasks: Sequence[TaskId]) -> int:
        """As the port says."""
        async with self._turn():
            return await self._store.forget(tasks)

    async def pool(self, name: str) -> PoolView:
        """As the port says."""
        async with self._turn():
            return await self._store.pool(name)


class BoundedEvents:
    """An :class:`EventLog` whose reads pass a door; the one reader of a pool does not."""

    def __init__(self, events: EventLog, *, timeout_s: float, calls: int = CALLS) -> None:
        self._events = events
        self._turn = Bulkhead(calls=calls, timeout_s=timeout_s)

    async def read(self, task: TaskId, *, after: str | None = None, limit: int = 1000) -> EventPage:
        """As the port says."""
        async with self._turn():
            return await self._events.read(task, after=after, limit=limit)

    async def tail(self, pool: str) -> str:
        """As the port says."""
        return await self._events.tail(pool)

    def follow(self, pool: str, *, after: str) -> AsyncIterator[Sequence[EventRecord]]:
        """As the port says."""
        return self._events.follow(pool, after=after)
