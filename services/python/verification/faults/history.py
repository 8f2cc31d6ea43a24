"""The record of what clients did and saw, in the order of writing: one JSON object per line.

A call takes two lines with the same ``i``. When the call begins, the kind of the line is ``invoke``. When it ends, the
kind is ``ok``, ``refused`` (the call certainly had no effect) or ``unknown`` (the call may have had an effect). A call
that does not end has only the first line. Everything else, such as a fault or an event of a stream, takes one line.
``t`` is the number of seconds since the history began, on the monotonic clock.
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
    """Writes a history. Several threads may write to it at once."""

    def __init__(self, path: Path, **about: Any) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: TextIO = path.open("w")
        self._lock = threading.Lock()
        self.began = time.monotonic()
        """The time at which the history began, in monotonic seconds."""
        self._calls = 0
        self.counts: dict[str, int] = {}
        """The number of lines by operation and kind: ``submit.ok``, ``fault.kill-leader``, …"""
        self.note("run", kind="begin", wall=time.time(), **about)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the history began."""
        return time.monotonic() - self.began

    @property
    def lines(self) -> int:
        """The number of lines."""
        return sum(list(self.counts.values()))

    def note(self, op: str, *, kind: str = "saw", **fields: Any) -> None:
        """Write one line."""
        with self._lock:
            if self._file.closed:
                return
            self._write({"op": op, "kind": kind, **fields})

    def invoke(self, op: str, **fields: Any) -> int:
        """Record that a call begins. :returns: its number."""
        with self._lock:
            self._calls += 1
            if not self._file.closed:
                self._write({"op": op, "kind": "invoke", "i": self._calls, **fields})
            return self._calls

    def done(self, call: int, op: str, kind: str, **fields: Any) -> None:
        """Record that a call has ended."""
        self.note(op, kind=kind, i=call, **fields)

    def flush(self) -> None:
        """Flush the file, so that a reader sees every line."""
        with self._lock:
            self._file.flush()

    def close(self) -> None:
        """Close the file; later lines are dropped."""
        with self._lock:
            self._file.close()

    def _write(self, line: Line) -> None:
        line["t"] = round(time.monotonic() - self.began, 6)
        name = f"{line['op']}.{line['kind']}"
        self.counts[name] = self.counts.get(name, 0) + 1
        self._file.write(json.dumps(line, separators=(",", ":"), default=str) + "\n")


def read(path: Path) -> Iterator[Line]:
    """The lines of a history. A last line that is incomplete is left out."""
    with path.open() as file:
        for text in file:
            if text.endswith("\n"):
                yield json.loads(text)
