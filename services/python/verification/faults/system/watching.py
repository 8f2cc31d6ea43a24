"""A thread that looks at one task and its pool all the time, so that what follows a fault has times."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

from daybreak_server.domain.pools import GroupState
from verification.faults.system.up import Up

_LOOK_S = 0.04


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What there is at one moment (monotonic seconds)."""

    at: float
    state: str
    """Of the task."""
    attempt: int
    strikes: int
    ready: frozenset[str]
    """The ids of the groups that can work."""


class Watcher:
    """Looks through the gateway; use it in ``with``. Only changes are kept."""

    def __init__(self, up: Up, pool: str, task: str) -> None:
        self._up = up
        self._pool = pool
        self._task = task
        self._ending = threading.Event()
        self._seen = threading.Condition()
        self.sights: list[Sight] = []
        self._thread = threading.Thread(target=self._look, name=f"watch-{pool}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._thread.join(30)

    def first(self, check: Callable[[Sight], bool], *, since: float, timeout_s: float, what: str) -> float:
        """Seconds from ``since`` to the first sight that passes. :raises TimeoutError: naming ``what``."""
        end = time.monotonic() + timeout_s
        with self._seen:
            while True:
                for sight in self.sights:
                    if sight.at >= since and check(sight):
                        return sight.at - since
                left = end - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"waited {timeout_s:g} s for {what}; last seen: {self.sights[-1:]}")
                self._seen.wait(min(left, 1.0))

    def _look(self) -> None:
        while not self._ending.wait(_LOOK_S):
            at = time.monotonic()
            groups: list[dict[str, Any]] | None = self._up.groups(self._pool)
            task = self._up.ask(f"/v1/tasks/{self._task}")
            if groups is None or task is None:
                continue
            sight = Sight(
                at=at,
                state=task["state"],
                attempt=task["attempt"],
                strikes=task["strikes"],
                ready=frozenset(one["id"] for one in groups if GroupState(one["state"]).ready),
            )
            with self._seen:
                if not self.sights or replace(self.sights[-1], at=at) != sight:
                    self.sights.append(sight)
                    self._seen.notify_all()
