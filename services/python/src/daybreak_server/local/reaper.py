"""Ends what is left of an instance. Standard library only: ``up`` also runs this file as a process.

Every process that ``up`` starts, and every process that those start, inherits one environment variable with
the instance's mark. So all of them can be found without a list: also after a kill -9 of ``up`` itself, for
which the process waits at the end of a pipe.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

MARK = "_DAYBREAK_INSTANCE"
"""Name of the variable; not ``DAYBREAK_…``, because those are settings."""
_TERM_S = 8.0
_KILL_S = 5.0


def marked(mark: str) -> list[int]:
    """The processes that carry ``mark`` (a prefix: an instance, or one part of it), without this one.

    Some programs overwrite their environment with a title, so the children of what is found count too.
    """
    wanted = f"{MARK}={mark}".encode()
    if Path("/proc/self/environ").exists():
        entries = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        found = {int(entry.name) for entry in entries if _has(entry, wanted)}
        parents = {int(entry.name): parent for entry in entries if (parent := _parent(entry)) is not None}
    else:
        found, parents = _from_ps(wanted.decode())
    while more := {pid for pid, parent in parents.items() if parent in found and pid not in found}:
        found |= more
    return sorted(found - {os.getpid()})


def _has(entry: Path, wanted: bytes) -> bool:
    try:
        marks = (entry / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(line.startswith(wanted) for line in marks) and _parent(entry) is not None


def _parent(entry: Path) -> int | None:
    """The parent of a live process; ``None`` of one that has ended."""
    try:
        state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else int(parent)


def _from_ps(wanted: str) -> tuple[set[int], dict[int, int]]:
    command = ["ps", "-axww", "-E", "-o", "pid=,ppid=,command="]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    found = {int(row[0]) for row in rows if len(row) == 3 and f" {wanted}" in row[2]}
    return found, {int(row[0]): int(row[1]) for row in rows if len(row) >= 2}


def end_all(mark: str, *, term_s: float = _TERM_S, spare: frozenset[int] = frozenset()) -> list[int]:
    """End every process with ``mark``: SIGTERM, and SIGKILL after ``term_s``. Returns those that stay."""
    _signal(mark, signal.SIGTERM, spare)
    left = _wait(mark, term_s, spare)
    if left:
        _signal(mark, signal.SIGKILL, spare)
        left = _wait(mark, _KILL_S, spare)
    return left


def _signal(mark: str, number: signal.Signals, spare: frozenset[int]) -> None:
    for pid in marked(mark):
        if pid not in spare:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)


def _wait(mark: str, seconds: float, spare: frozenset[int]) -> list[int]:
    end = time.monotonic() + seconds
    while left := [pid for pid in marked(mark) if pid not in spare]:
        if time.monotonic() > end:
            return left
        time.sleep(0.05)
    return []


def main() -> None:
    """Wait until the process at the other end of standard input is gone, then end what it has left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    mark = sys.argv[1]
    said = sys.stdin.buffer.read()
    if said != b"done":
        end_all(mark)


if __name__ == "__main__":
    main()
