"""Notices that no group of a pool can start, so that clients of sessions need not wait for one.

If no group can start and none has begun a session, the session's client gets an error with the cause
(:attr:`PoolView.start_failure`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from daybreak_server.api.asyncio_tasks import cancel_and_wait
from daybreak_server.api.intake.catalog import FRESH_MS, PoolViewCache
from daybreak_server.api.routing.failures import no_group_can_start
from daybreak_server.domain.sessions import SessionEvent
from daybreak_server.ports.store_errors import StoreError


class StartFailures:
    """Checks whether the groups of a pool fail to start."""

    def __init__(self, views: PoolViewCache) -> None:
        self._views = views

    async def check(self, pool: str) -> None:
        """Check that groups of the pool can start. :raises ApiError: ``not_ready``, if they cannot load their model."""
        try:
            view = await self._views.get(pool)
        except StoreError:
            return  # the caller's next call to the store raises the error
        if view.start_failure is not None:
            raise no_group_can_start(pool, view.start_failure)

    async def until_begun(
        self, pool: str, events: AsyncGenerator[SessionEvent, None]
    ) -> AsyncGenerator[SessionEvent, None]:
        """The events of a session. Checks the pool repeatedly until the first event arrives.

        :raises ApiError: as :meth:`check` does.
        """
        first = asyncio.create_task(_next(events))
        checking = asyncio.create_task(self._check_always(pool))
        try:
            await asyncio.wait((first, checking), return_when=asyncio.FIRST_COMPLETED)
            if not first.done():
                await checking
            event = await first
        finally:
            await cancel_and_wait(first, checking)
        if event is not None:
            yield event
            async for event in events:
                yield event

    async def _check_always(self, pool: str) -> None:
        while True:
            await self.check(pool)
            await asyncio.sleep(FRESH_MS / 1000)


async def _next(events: AsyncGenerator[SessionEvent, None]) -> SessionEvent | None:
    return await anext(events, None)
