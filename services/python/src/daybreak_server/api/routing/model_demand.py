"""Publishes how many requests for each model this gateway has, so that the models get the replicas that they need.

All models share one publisher. A published number expires after a few seconds, because a gateway that has died must not
ask for replicas. So while there are requests, the publisher publishes their numbers once a second. It also publishes
them at once when the requests of this gateway need more or fewer replicas than before. A request that begins and ends
between two publications counts in the second one, so that a model which is used all the time never seems idle.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from daybreak_server.api.routing.demand import EVERY_S, MIN_PAUSE_S, TTL_S
from daybreak_server.ports.registry import Registry
from daybreak_server.ports.store_errors import StoreError

log = logging.getLogger("daybreak.api.routing")


@dataclass(slots=True)
class _Followed:
    """A model. ``elsewhere`` counts the requests for it that its fallback answers."""

    requests: Callable[[], int]
    target_load: Callable[[], float]
    elsewhere: int = 0
    peak: int = 0
    published: int = 0

    def now(self) -> int:
        return self.requests() + self.elsewhere

    def replicas(self, requests: int) -> int:
        return math.ceil(requests / self.target_load())


class ModelDemand:
    """The demand of one gateway for all models."""

    def __init__(self, registry: Registry, *, gateway: str) -> None:
        self._registry = registry
        self._gateway = gateway
        self._models: dict[str, _Followed] = {}
        self._changed = asyncio.Event()
        self._empty = True
        """Whether the registry holds no demand of this gateway."""

    def follow(self, alias: str, requests: Callable[[], int], target_load: Callable[[], float]) -> None:
        """Publish the demand for a model from now on. ``requests`` returns how many requests the model has now."""
        self._models[alias] = _Followed(requests, target_load)

    def forget(self, alias: str) -> None:
        """Stop publishing the demand for the model."""
        self._models.pop(alias, None)

    def changed(self, alias: str) -> None:
        """Call this after each change of the demand. It costs little unless the number of replicas needed changes."""
        model = self._models.get(alias)
        if model is None:
            return
        now = model.now()
        model.peak = max(model.peak, now)
        if model.replicas(now) != model.replicas(model.published):
            self._changed.set()

    @contextmanager
    def answered_elsewhere(self, alias: str) -> Iterator[None]:
        """Count a request for a model while its fallback answers it."""
        model = self._models.get(alias)
        if model is None:
            yield
            return
        model.elsewhere += 1
        self.changed(alias)
        try:
            yield
        finally:
            model.elsewhere -= 1
            self.changed(alias)

    async def run(self) -> None:
        """Publish until cancelled, then withdraw the demand."""
        failing = False
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(EVERY_S):
                        await self._changed.wait()
                self._changed.clear()
                requests = self._take()
                if requests or not self._empty:
                    failing = not await self._publish(requests, warn=not failing)
                await asyncio.sleep(MIN_PAUSE_S)
        finally:
            if not self._empty:
                await self._publish({}, warn=False)

    def _take(self) -> dict[str, int]:
        """The highest number of requests that each model has had at once since the last call."""
        taken: dict[str, int] = {}
        for alias, model in self._models.items():
            now = model.now()
            if peak := max(model.peak, now):
                taken[alias] = peak
            model.peak, model.published = now, peak
        return taken

    async def _publish(self, requests: dict[str, int], *, warn: bool) -> bool:
        try:
            await self._registry.publish_demand(self._gateway, requests, ttl_s=TTL_S)
        except StoreError as exc:
            if warn:
                log.warning("cannot publish the demand for models: %s; retrying", exc)
            return False
        except Exception:
            log.exception("publishing the demand for models failed")
            return False
        self._empty = not requests
        return True
