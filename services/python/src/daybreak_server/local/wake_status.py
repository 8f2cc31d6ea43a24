"""Publishes what each pool without a ready group waits for. This module does it under ``daybreakd up``; on Kubernetes,
the operator does it.

A group publishes its phases itself, but it exists only after Ray has started its processes. Without this report,
waiting clients would see no progress until then. A pool whose model is missing has no report. So the gateway refuses
its requests and sessions with the reason (:attr:`PoolView.start_failure`). If there were a report, they would wait.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from daybreak_server import wiring
from daybreak_server.domain.causes import Reason
from daybreak_server.domain.pools import GROUP_PHASES, GroupState, PoolReport, PoolView, WakePhase
from daybreak_server.ports.pools import GroupStore
from daybreak_server.ports.store_errors import StoreError
from daybreak_server.settings.tree import Settings

POLL_S = 0.5
REPORT_TTL_S = 5.0
"""A report expires after this time, so that it soon disappears when the supervisor is killed."""


@dataclass(slots=True)
class WakeTracker:
    """A pool on its way from no group to a ready one. Times are milliseconds since 1970."""

    began_ms: int
    first_group_ms: int | None = None
    """When the first group registered. Until then the pool waited for Ray."""

    def update(self, view: PoolView, now_ms: int, *, wanted: int) -> PoolReport:
        """Process the current state of the pool. :returns: the report to publish."""
        groups = [group for group in view.groups if group.state is not GroupState.LOST]
        ready = [group for group in groups if group.state.ready]
        if groups and self.first_group_ms is None:
            self.first_group_ms = now_ms
        if not ready:
            return PoolReport(
                phase="Waking",
                reason="" if view.failure is None else view.failure.reason,
                message="" if view.failure is None else view.failure.message,
                wanted=wanted,
                wake_phase=WakePhase.RAY,
                wake_since_ms=self.began_ms,
                wake_began_ms=self.began_ms,
                wake_passed={} if self.first_group_ms is None else {WakePhase.RAY: self._ray_s(now_ms)},
            )
        return PoolReport(
            phase="Ready",
            wanted=wanted,
            wake_phase=WakePhase.READY,
            wake_last=self._durations(ready[0].wake, now_ms),
        )

    def _durations(self, group: Mapping[str, float], now_ms: int) -> dict[str, float]:
        """The seconds of each phase. This tracker measures Ray's phase and the total; the group measures the others."""
        measured: dict[str, float] = {name: group[name] for name in GROUP_PHASES if name in group}
        total_s = round((now_ms - self.began_ms) / 1000, 3)
        return {WakePhase.RAY: self._ray_s(now_ms), **measured, "total": total_s}

    def _ray_s(self, now_ms: int) -> float:
        return round(((self.first_group_ms or now_ms) - self.began_ms) / 1000, 3)


class WakeReporter:
    """A thread that polls each pool that is configured to have groups, and reports on it until a group is ready."""

    def __init__(self, settings: Settings, *, say: Callable[[str], None] = lambda _line: None) -> None:
        """``say``: prints a line. It is called when something keeps the groups of a pool from starting."""
        self._settings = settings
        self._say = say
        self._failures: dict[str, str] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._run()), name="wake-reporter", daemon=True
        )
        self._wakes: dict[str, WakeTracker] = {}

    def start(self) -> None:
        """Start the thread. The wake of every pool begins now."""
        self._wakes = {
            name: WakeTracker(began_ms=_now_ms())
            for name, pool in self._settings.pools.items()
            if pool.groups
        }
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread and wait for it."""
        self._stopping.set()
        self._thread.join(timeout=30)

    async def _run(self) -> None:
        store = wiring.build_store(self._settings)
        try:
            while not self._stopping.is_set():
                for name, pool in self._settings.pools.items():
                    if pool.groups:
                        with contextlib.suppress(StoreError):  # the store may still be starting
                            await self._poll(store, name, wanted=pool.groups)
                await asyncio.to_thread(self._stopping.wait, POLL_S)
        finally:
            await store.close()

    async def _poll(self, store: GroupStore, name: str, *, wanted: int) -> None:
        view = await store.pool(name)
        failure = view.failure.message if view.failure is not None else ""
        if failure and failure != self._failures.get(name):
            self._say(f"pool {name} has a problem: {failure}")
        self._failures[name] = failure
        is_ready = any(group.state.ready for group in view.groups)
        if view.failure is not None and view.failure.reason == Reason.MODEL_MISSING and not is_ready:
            return
        if name not in self._wakes:
            if is_ready:
                return
            self._wakes[name] = WakeTracker(began_ms=_now_ms())
        report = self._wakes[name].update(view, _now_ms(), wanted=wanted)
        await store.publish_report(name, report, ttl_s=REPORT_TTL_S)
        if report.phase == "Ready":
            del self._wakes[name]


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
