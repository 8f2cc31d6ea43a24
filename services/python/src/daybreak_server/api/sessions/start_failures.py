"""Notices that no group of a pool can start, so that clients need not wait for one.

A group that cannot load its model reports why, leaves, and tries again after a growing delay. Between two attempts, the
pool has no group at all, and its last failure names the model. A session that no group has begun then fails with this
failure. While a group starts, sessions wait for it. If an operator manages the pool, they always wait: their demand is
what makes the operator start groups with a corrected model.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from daybreak.wire import ErrorCode
from daybreak_server.api.asyncio_tasks import cancel_and_wait
from daybreak_server.api.errors import ApiError
from daybreak_server.api.intake.catalog import FRESH_MS, PoolViewCache
from daybreak_server.domain.causes import Reason
from daybreak_server.domain.pools import GroupState
from daybreak_server.domain.sessions import SessionEvent
from daybreak_server.ports.store_errors import StoreError

_RETRY_AFTER_S = 120.0
"""Longer than the longest delay between two attempts of a group, with the time to load a model."""


class StartFailures:
    """The failures of groups to start."""

    def __init__(self, views: PoolViewCache) -> None:
        self._views = views

    async def check(self, pool: str) -> None:
        """:raises ApiError: ``not_ready``, if the groups of the pool cannot load their model."""
        try:
            view = await self._views.get(pool)
        except StoreError:
            return  # the call that follows finds out
        failure = view.failure
        if failure is None or failure.reason != Reason.MODEL_MISSING or view.report is not None:
            return
        if any(group.state is not GroupState.LOST for group in view.groups):
            return
        raise ApiError(
            ErrorCode.NOT_READY,
            f"No group of the pool {pool} can start: {failure.message.rstrip('.')}. An administrator must correct the "
            "model. The groups try again by themselves.",
            retry_after_s=_RETRY_AFTER_S,
        )

    async def until_begun(
        self, pool: str, events: AsyncGenerator[SessionEvent, None]
    ) -> AsyncGenerator[SessionEvent, None]:
        """The events of a session. Checks the pool again and again until the first one.

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
