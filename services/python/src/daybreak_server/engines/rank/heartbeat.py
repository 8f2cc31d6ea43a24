"""When the work last advanced. The lease is renewed, and the rank is called healthy, only while it does."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Mirror(Protocol):
    """Where a pulse can be read by another process."""

    def write(self, *, beat: float, limit_s: float, what: str) -> None:
        """The work has advanced."""


class Heartbeat:
    """Raised by the work thread, watched by others. ``limit_s`` is how long it may stand still."""

    def __init__(
        self, limit_s: float, *, clock: Callable[[], float] = time.monotonic, mirror: Mirror | None = None
    ) -> None:
        self._clock = clock
        self._mirror = mirror
        self._lock = threading.Lock()
        self._at = clock()
        self._limit_s = limit_s
        self._what = "starting"
        self.count = 0
        self._show()

    def beat(self, what: str | None = None, *, limit_s: float | None = None) -> None:
        """The work has advanced; ``what`` names what begins now, and ``limit_s`` how long it may take."""
        with self._lock:
            self._at = self._clock()
            self.count += 1
            if what is not None:
                self._what = what
            if limit_s is not None:
                self._limit_s = limit_s
            self._show()

    def _show(self) -> None:
        if self._mirror is not None:
            self._mirror.write(beat=self._at, limit_s=self._limit_s, what=self._what)

    @contextmanager
    def during(self, what: str, limit_s: float) -> Iterator[None]:
        """Something that may take ``limit_s``; afterwards the earlier limit holds again."""
        with self._lock:
            before = (self._what, self._limit_s)
        self.beat(what, limit_s=limit_s)
        try:
            yield
        finally:
            self.beat(before[0], limit_s=before[1])

    def stalled(self) -> str | None:
        """Why this is a stall, or ``None`` while it is not."""
        with self._lock:
            silent, limit, what = self._clock() - self._at, self._limit_s, self._what
        if silent <= limit:
            return None
        return f"no progress in {what} for {silent:.1f} s (the limit is {limit:g} s)"
