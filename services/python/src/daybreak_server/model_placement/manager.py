"""The manager, which keeps the plan of models and workers up to date while it holds the lease ``placement``.

Several processes run a manager: each gateway and, where Ray is up, an actor on Ray with a higher priority. Only the
holder of the lease changes the plan. All state is in the registry, so killing a manager loses nothing, and another
manager takes over when the lease ends.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from daybreak_server.domain.models import ReplicaState
from daybreak_server.model_placement.plan import plan, removable
from daybreak_server.ports.registry import Registry, RegistryView
from daybreak_server.ports.store_errors import StoreError

_log = logging.getLogger("daybreak.manager")

EVERY_S = 1.0
MIN_PAUSE_S = 0.02
"""The shortest time between two rounds, during a burst of changes."""
TTL_S = 5.0
"""How long the lease lasts. A manager that dies is replaced after this time."""
_MAX_BACKOFF_S = 5.0


class Manager:
    """One candidate for the lease. ``holder`` names it in the registry. Of two candidates, the one with the higher
    ``priority`` leads."""

    def __init__(self, registry: Registry, *, holder: str, priority: int = 0) -> None:
        self._registry = registry
        self._holder = holder
        self._priority = priority
        self._leads = False
        self._view: RegistryView | None = None
        self._planned_at = 0.0

    def health(self) -> dict[str, Any]:
        """The state of this manager, for people and probes."""
        view = self._view
        replicas = [replica for worker in view.workers for replica in worker.replicas] if view else []
        return {
            "holder": self._holder,
            "leads": self._leads,
            "manager": view.manager if view else None,
            "version": view.version if view else 0,
            "models": len(view.models) if view else 0,
            "workers": len(view.workers) if view else 0,
            "ready_replicas": sum(replica.state is ReplicaState.READY for replica in replicas),
            "last_round_s": round(time.monotonic() - self._planned_at, 3) if self._planned_at else None,
        }

    async def run(self) -> None:
        """Plan until cancelled, then give the lease back."""
        failures = 0
        try:
            while True:
                try:
                    version = await self.round()
                    if failures:
                        _log.warning("the manager plans again")
                    failures = 0
                    await asyncio.sleep(MIN_PAUSE_S)
                    await self._registry.wait(after=version, timeout_s=EVERY_S)
                except StoreError as exc:
                    if not failures:
                        _log.warning("the manager cannot reach the registry: %s; retrying", exc)
                    failures += 1
                    await asyncio.sleep(min(EVERY_S * 2**failures, _MAX_BACKOFF_S))
                except Exception:
                    failures += 1
                    _log.exception("a round of the manager failed")
                    # Another manager may succeed. Until then, the metrics show that no manager plans.
                    await self._give_back()
                    await asyncio.sleep(_MAX_BACKOFF_S)
        finally:
            await self._give_back()

    async def round(self) -> int:
        """Look at the registry once, and change the plan if this manager leads. Returns the registry's version."""
        leads = await self._registry.hold_placement(self._holder, priority=self._priority, ttl_s=TTL_S)
        if leads != self._leads:
            _log.info("%s %s", self._holder, "places models now" if leads else "no longer places models")
        self._leads = leads
        view = self._view = await self._registry.tick()
        self._planned_at = time.monotonic()
        if not leads:
            return view.version
        for alias in removable(view):
            await self._registry.remove_model(alias)
        planned = plan(view)
        if planned != view.plan:
            await self._registry.publish_plan(self._holder, planned)
        return view.version

    async def _give_back(self) -> None:
        if not self._leads:
            return
        self._leads = False
        try:
            async with asyncio.timeout(1.0):
                await self._registry.release_placement(self._holder)
        except (StoreError, TimeoutError) as exc:
            _log.warning("cannot end the lease of the manager: %s. The lease expires by itself", exc)
