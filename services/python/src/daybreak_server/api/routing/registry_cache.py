"""Keeps the latest view of the registry of workers and models, and passes each new view to its subscribers.

The view is read again when the registry changes. It is also read once a second, because a worker's new load does not
count as a change. ``run`` reads the view with the registry's ``tick``, because only ``tick`` ends expired leases.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from daybreak_server.ports.registry import Registry, RegistryView
from daybreak_server.ports.store_errors import StoreError

log = logging.getLogger("daybreak.api.registry")

EVERY_S = 1.0
MIN_PAUSE_S = 0.02
"""The shortest time between two reads, during a burst of changes."""
_MAX_BACKOFF_S = 5.0


class RegistryCache:
    """The latest view. Use an instance in one event loop only."""

    def __init__(self, registry: Registry) -> None:
        self.latest: RegistryView | None = None
        """The last view, however old it is; ``None`` before the first one."""
        self._registry = registry
        self._subscribers: list[Callable[[RegistryView], None]] = []
        self._reading = asyncio.Lock()

    def subscribe(self, on_view: Callable[[RegistryView], None]) -> None:
        """Call ``on_view`` with each new view."""
        self._subscribers.append(on_view)

    async def get(self) -> RegistryView:
        """The latest view, read now if there is none. :raises StoreError:"""
        return self.latest or await self.refresh()

    async def refresh(self) -> RegistryView:
        """Read the view now. :raises StoreError:"""
        async with self._reading:  # one at a time, so that an older view never replaces a newer one
            return self._take(await self._registry.view())

    async def run(self) -> None:
        """Follow the registry until cancelled; back off while it cannot be read."""
        failures = 0
        while True:
            try:
                async with self._reading:
                    view = self._take(await self._registry.tick())
                if failures:
                    log.warning("the registry of workers and models can be read again")
                failures = 0
                await asyncio.sleep(MIN_PAUSE_S)
                await self._registry.wait(after=view.version, timeout_s=EVERY_S)
            except StoreError as exc:
                if not failures:
                    log.warning("cannot read the registry of workers and models: %s; retrying", exc)
                failures += 1
                await asyncio.sleep(min(EVERY_S * 2**failures, _MAX_BACKOFF_S))
            except Exception:
                failures += 1
                log.exception("following the registry of workers and models failed")
                await asyncio.sleep(_MAX_BACKOFF_S)

    def _take(self, view: RegistryView) -> RegistryView:
        self.latest = view
        for on_view in self._subscribers:
            on_view(view)
        return view
