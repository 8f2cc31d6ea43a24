"""A thread that polls one task and its pool, so that a test can tell when each effect of a fault became visible."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

from daybreak_server.domain.pools import GroupState
from verification.faults.system.up import Up

_POLL_S = 0.04


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state of a task and its pool at one moment."""

    at: float
    """Monotonic seconds."""
    state: str
    """The task's state."""
    attempt: int
    strikes: int
    ready: frozenset[str]
    """The ids of the groups that are ready."""


class Watcher:
    """Polls through the gateway and keeps each snapshot that differs from the previous one. A context manager."""

    def __init__(self, up: Up, pool: str, task: str) -> None:
        self._up = up
        self._pool = pool
        self._task = task
        self._stopping = threading.Event()
        self._seen = threading.Condition()
        self.snapshots: list[Snapshot] = []
        self._thread = threading.Thread(target=self._poll, name=f"watch-{pool}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join(30)

    def first(self, check: Callable[[Snapshot], bool], *, since: float, timeout_s: float, what: str) -> float:
        """Seconds from ``since`` to the first snapshot that passes ``check``. :raises TimeoutError: with ``what``."""
        end = time.monotonic() + timeout_s
        with self._seen:
            while True:
                for snapshot in self.snapshots:
                    if snapshot.at >= since and check(snapshot):
                        return snapshot.at - since
                remaining_s = end - time.monotonic()
                if remaining_s <= 0:
                    raise TimeoutError(f"waited {timeout_s:g} s for {what}; last seen: {self.snapshots[-1:]}")
                self._seen.wait(min(remaining_s, 1.0))

    def _poll(self) -> None:
        while not self._stopping.wait(_POLL_S):
            at = time.monotonic()
            groups: list[dict[str, Any]] | None = self._up.groups(self._pool)
            task = self._up.try_get(f"/v1/tasks/{self._task}")
            if groups is None or task is None:
                continue
            snapshot = Snapshot(
                at=at,
                state=task["state"],
                attempt=task["attempt"],
                strikes=task["strikes"],
                ready=frozenset(group["id"] for group in groups if GroupState(group["state"]).ready),
            )
            with self._seen:
                if not self.snapshots or replace(self.snapshots[-1], at=at) != snapshot:
                    self.snapshots.append(snapshot)
                    self._seen.notify_all()
