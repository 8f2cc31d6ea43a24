"""How many requests a group holds, and why it refuses more.

The sender of a refused request can try it on another group. A request that is refused as ``busy`` or ``other`` has not
begun to run. A request that is refused as ``draining`` or ``broken`` may have begun to run before the group left or
broke.
"""

from __future__ import annotations

import threading

from daybreak_server.domain.serving_headers import Refusal
from daybreak_server.domain.serving_load import Load


class Admission:
    """Counts requests. The HTTP loop admits and releases them. Any thread may read the count and set
    ``draining``."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._draining = False
        self._lock = threading.Lock()
        self._held = 0
        self._peak = 0

    def admit(self) -> Refusal | None:
        """Count one more request, or return why it is refused."""
        with self._lock:
            if self._draining:
                return Refusal.DRAINING
            if self._held >= self.capacity:
                return Refusal.BUSY
            self._held += 1
            self._peak = max(self._peak, self._held)
        return None

    def release(self) -> None:
        """Count one request less."""
        with self._lock:
            self._held -= 1

    @property
    def draining(self) -> bool:
        """Whether no more requests are admitted. While this stays true, the number of held requests does not rise."""
        return self._draining

    @draining.setter
    def draining(self, on: bool) -> None:
        with self._lock:
            self._draining = on

    @property
    def held(self) -> int:
        """The number of requests that the group holds."""
        return self._held

    def load(self, *, waiting: int, free_memory_bytes: int | None = None) -> Load:
        """The load to report. ``waiting``: how many of the held requests have not begun to run."""
        held = self._held
        waiting = min(waiting, held)
        return Load(in_flight=held - waiting, waiting=waiting, free_memory_bytes=free_memory_bytes)

    def was_busy(self) -> bool:
        """Whether the group has held any request since the last call of this method, even if none is held now."""
        with self._lock:
            peak, self._peak = self._peak, self._held
        return peak > 0
