"""Publishes how many requests of a pool this gateway has, so that the pool gets the groups that these requests need.

A published number expires after a few seconds, so the number of a dead gateway soon disappears. A gateway with requests
publishes their number once a second. It also publishes at once when its requests need more or fewer groups than before.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from contextlib import suppress

from daybreak_server.ports.demand import DemandStore
from daybreak_server.ports.store_errors import StoreError

log = logging.getLogger("daybreak.api.routing")

TTL_S = 5.0
EVERY_S = 1.0
MIN_PAUSE_S = 0.02
"""The shortest time between two publications, during a burst of changes."""


class DemandPublisher:
    """Publishes the demand of one pool. ``demand`` returns the present demand."""

    def __init__(
        self, *, pool: str, gateway: str, store: DemandStore, target_load: float, demand: Callable[[], int]
    ) -> None:
        self._pool = pool
        self._gateway = gateway
        self._store = store
        self._target_load = target_load
        self._demand = demand
        self._published = 0
        self._wanted = 0
        """How many groups the published demand wants."""
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Call this after each change of the demand. The call is cheap unless the number of groups wanted changes."""
        if self._groups(self._demand()) != self._wanted:
            self._changed.set()

    async def run(self) -> None:
        """Publish until cancelled, then withdraw the demand."""
        failing = False
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(EVERY_S):
                        await self._changed.wait()
                self._changed.clear()
                if self._demand() or self._published:
                    failing = not await self._publish(self._demand(), warn=not failing)
                await asyncio.sleep(MIN_PAUSE_S)
        finally:
            if self._published:
                await self._publish(0, warn=False)

    async def _publish(self, requests: int, *, warn: bool) -> bool:
        try:
            await self._store.publish_demand(self._pool, self._gateway, requests, ttl_s=TTL_S)
        except StoreError as exc:
            if warn:
                log.warning("pool %s: cannot publish its demand: %s; retrying", self._pool, exc)
            return False
        except Exception:
            log.exception("pool %s: publishing its demand failed", self._pool)
            return False
        self._published, self._wanted = requests, self._groups(requests)
        return True

    def _groups(self, requests: int) -> int:
        return math.ceil(requests / self._target_load)
