"""Counts finished tasks across processes without a network: what the queues under test are measured by.

Each process that ticks has a file of its own in a folder, mapped into memory, so that a tick costs about a
microsecond, is the same for every queue, and puts no load on the server. Standard library only: the workers
of other queues import it in environments of their own.
"""

from __future__ import annotations

import mmap
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

ROOM = 200_000
"""Delays that one process can keep; later ones are counted and not kept."""
_HEAD = 3
_WORD = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What all processes of a folder have counted. Times are ``time.monotonic_ns``."""

    count: int
    first_ns: int
    last_ns: int
    delays_ns: tuple[int, ...]
    by_process: tuple[int, ...] = ()


class Tally:
    """Counts in ``folder``. Threads share it; a forked process gets a file of its own at its first tick."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._pid = 0
        self._view: memoryview = memoryview(b"")

    def tick(self, sent_ns: int = 0) -> None:
        """One task has run; ``sent_ns`` is when it was handed in, where its delay is wanted."""
        now = time.monotonic_ns()
        with self._lock:
            if self._pid != os.getpid():
                self._open()
            view = self._view
            if not view[0]:
                view[1] = now
            if sent_ns and view[0] < ROOM:
                view[_HEAD + view[0]] = now - sent_ns
            view[2] = now
            view[0] += 1

    def _open(self) -> None:
        self._pid = os.getpid()
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._pid}.tally"
        with path.open("w+b") as file:
            file.truncate((_HEAD + ROOM) * _WORD)
            self._view = memoryview(mmap.mmap(file.fileno(), 0)).cast("q")


def count(folder: Path) -> int:
    """How many tasks have run so far."""
    return sum(_words(path, 1)[0] for path in folder.glob("*.tally"))


def read(folder: Path) -> Seen:
    """All that was counted in ``folder``."""
    heads, delays = [], []
    for path in sorted(folder.glob("*.tally")):
        head = _words(path, _HEAD)
        if head[0]:
            heads.append(head)
            delays += [d for d in _words(path, _HEAD + min(head[0], ROOM))[_HEAD:] if d]
    return Seen(
        count=sum(head[0] for head in heads),
        first_ns=min((head[1] for head in heads), default=0),
        last_ns=max((head[2] for head in heads), default=0),
        delays_ns=tuple(delays),
        by_process=tuple(head[0] for head in heads),
    )


def clear(folder: Path) -> None:
    """Back to nothing; the processes go on with the files that they have mapped."""
    for path in folder.glob("*.tally"):
        with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
            memory[:] = bytes(len(memory))


def _words(path: Path, number: int) -> tuple[int, ...]:
    with path.open("rb") as file:
        data = file.read(number * _WORD)
    if len(data) < number * _WORD:  # made and not yet filled
        return (0,) * number
    return tuple(memoryview(data).cast("q"))
