"""Under ``up``, what a pool waits for while no group is there yet: said where an operator would say it.

A group tells of its own phases, but it exists only when Ray has started and has made its processes. Until then a
client that waits would see nothing move.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from daybreak_server import wiring
from daybreak_server.domain.pools import GROUP_PHASES, GroupState, PoolReport, PoolView, WakePhase
from daybreak_server.ports.pools import GroupStore
from daybreak_server.ports.store_errors import StoreError
from daybreak_server.settings.tree import Settings

LOOK_S = 0.5
TOLD_S = 5.0
"""What was told counts for so long: a supervisor that is gone says nothing any more."""


@dataclass(slots=True)
class Wake:
    """A pool's way from no group to a ready one. Times are milliseconds since 1970."""

    began_ms: int
    met_ms: int | None = None
    """When its first group was seen: until then Ray was at work."""

    def look(self, view: PoolView, now_ms: int, *, wanted: int) -> PoolReport:
        """What to tell of the pool now."""
        groups = [group for group in view.groups if group.state is not GroupState.LOST]
        ready = [group for group in groups if group.state.ready]
        if groups and self.met_ms is None:
            self.met_ms = now_ms
        if not ready:
            return PoolReport(
                phase="Waking",
                reason="" if view.failure is None else view.failure.reason,
                message="" if view.failure is None else view.failure.message,
                wanted=wanted,
                wake_phase=WakePhase.RAY,
                wake_since_ms=self.began_ms,
                wake_began_ms=self.began_ms,
            )
        return PoolReport(
            phase="Ready",
            wanted=wanted,
            wake_phase=WakePhase.READY,
            wake_last=self._whole(ready[0].wake, now_ms),
        )

    def _whole(self, of_group: Mapping[str, float], now_ms: int) -> dict[str, float]:
        ray_s = round(((self.met_ms or now_ms) - self.began_ms) / 1000, 3)
        own: dict[str, float] = {name: of_group[name] for name in GROUP_PHASES if name in of_group}
        return {WakePhase.RAY: ray_s, **own, "total": round((now_ms - self.began_ms) / 1000, 3)}


class WakeReporter:
    """A thread that looks at all pools and tells of those that have no ready group."""

    def __init__(self, settings: Settings, *, say: Callable[[str], None] = lambda _line: None) -> None:
        """``say``: takes a line for the terminal when something keeps a pool from working."""
        self._settings = settings
        self._say = say
        self._said: dict[str, str] = {}
        self._going = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), name="telling", daemon=True)
        self._wakes: dict[str, Wake] = {}

    def start(self) -> None:
        """Begin; all pools wake from now on."""
        self._wakes = {
            name: Wake(began_ms=_now_ms()) for name, pool in self._settings.pools.items() if pool.groups
        }
        self._thread.start()

    def stop(self) -> None:
        """End, and wait for it."""
        self._going.set()
        self._thread.join(timeout=30)

    async def _run(self) -> None:
        store = wiring.build_store(self._settings)
        try:
            while not self._going.is_set():
                for name, pool in self._settings.pools.items():
                    if pool.groups:
                        with contextlib.suppress(StoreError):  # it starts, too
                            await self._look(store, name, wanted=pool.groups)
                await asyncio.to_thread(self._going.wait, LOOK_S)
        finally:
            await store.close()

    async def _look(self, store: GroupStore, name: str, *, wanted: int) -> None:
        view = await store.pool(name)
        failure = view.failure.message if view.failure is not None else ""
        if failure and failure != self._said.get(name):
            self._say(f"pool {name} is not in order: {failure}")
        self._said[name] = failure
        if name not in self._wakes:
            if any(group.state.ready for group in view.groups):
                return
            self._wakes[name] = Wake(began_ms=_now_ms())
        report = self._wakes[name].look(view, _now_ms(), wanted=wanted)
        await store.tell(name, report, ttl_s=TOLD_S)
        if report.phase == "Ready":
            del self._wakes[name]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
