"""What clients did and saw, in the order in which they wrote it down: one JSON object a line.

Every call is two lines with the same ``i``: ``invoke`` when it begins and ``ok``, ``refused`` (certainly nothing
was done) or ``unknown`` (nobody can say) when it ends. ``t`` is in monotonic seconds since the history began.
What is seen without having been asked for (an event of a stream) and what is done to the system (a fault) is
one line.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

Line = dict[str, Any]


class History:
    """Writes a history. Threads may share one."""

    def __init__(self, path: Path, **about: Any) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = path.open("w")
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._calls = 0
        self.counts: dict[str, int] = {}
        """Lines by operation and kind: ``submit.ok``, ``fault.kill-leader``, …"""
        self.note("run", kind="begin", wall=time.time(), **about)

    @property
    def elapsed_s(self) -> float:
        """Seconds since it began."""
        return time.monotonic() - self._began

    @property
    def lines(self) -> int:
        """How many lines it has."""
        return sum(list(self.counts.values()))

    def note(self, op: str, *, kind: str = "saw", **fields: Any) -> None:
        """One line."""
        with self._lock:
            if self._file.closed:
                return
            self._write({"op": op, "kind": kind, **fields})

    def invoke(self, op: str, **fields: Any) -> int:
        """A call begins; its number."""
        with self._lock:
            self._calls += 1
            if not self._file.closed:
                self._write({"op": op, "kind": "invoke", "i": self._calls, **fields})
            return self._calls

    def done(self, call: int, op: str, kind: str, **fields: Any) -> None:
        """A call has ended."""
        self.note(op, kind=kind, i=call, **fields)

    def flush(self) -> None:
        """Bring it to the disk's cache, for a reader."""
        with self._lock:
            self._file.flush()

    def close(self) -> None:
        """No more lines."""
        with self._lock:
            self._file.close()

    def _write(self, line: Line) -> None:
        line["t"] = round(time.monotonic() - self._began, 6)
        name = f"{line['op']}.{line['kind']}"
        self.counts[name] = self.counts.get(name, 0) + 1
        self._file.write(json.dumps(line, separators=(",", ":"), default=str) + "\n")


def read(path: Path) -> Iterator[Line]:
    """The lines of a history; a last line that was cut is left out."""
    with path.open() as file:
        for text in file:
            if text.endswith("\n"):
                yield json.loads(text)
