"""The threads on which a group answers requests: at most ``threads_max``.

They are daemon threads, unlike those of ``concurrent.futures``, so that a request that hangs cannot keep
the process from ending. If no thread is idle when a request comes, another thread starts. Threads stay until ``close``.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Generic, TypeVar

from daybreak_server.domain.log_context import inherited

T = TypeVar("T")


class WorkerThreads(Generic[T]):
    """Calls ``work`` for each item that is submitted, on one of the threads. ``work`` must not raise."""

    def __init__(self, work: Callable[[T], None], *, threads_max: int) -> None:
        self._work = work
        self._threads_max = threads_max
        self._items: queue.SimpleQueue[T | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._threads = 0
        self._free = 0
        self._run_here = inherited(self._run)

    def submit(self, item: T) -> None:
        """Queue an item for ``work``. Returns at once."""
        with self._lock:
            if self._free > 0:
                self._free -= 1
            elif self._threads < self._threads_max:
                name = f"request-{self._threads + 1}"
                threading.Thread(target=self._run_here, name=name, daemon=True).start()
                self._threads += 1  # after the start, because the system may refuse another thread
            else:
                self._free -= 1  # below 0, it counts the items that wait for a thread
        self._items.put(item)

    def close(self) -> None:
        """Let the threads end once they are idle."""
        for _ in range(self._threads_max):
            self._items.put(None)

    def _run(self) -> None:
        while True:
            item = self._items.get()
            if item is None:
                return
            self._work(item)
            with self._lock:
                self._free += 1
