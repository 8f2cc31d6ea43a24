"""Stops the processes of an instance, even after a ``kill -9`` of ``up``.

``dev``, ``gateway --embedded`` and ``demo-serve`` also run an instance of their own. What this text says about ``up``
holds for them too.

Every process that ``up`` starts inherits an environment variable with the instance's tag, and passes it on to the
processes that it starts itself. So ``/proc`` (or ``ps``) shows which processes belong to an instance, and no list is
needed.

``up`` runs this file as a process of its own, which blocks on a pipe from ``up``. When ``up`` stops normally, it
writes ``done`` into the pipe. When ``up`` is killed, the pipe closes without this word, and the process of this file
stops all other processes with the tag. The file imports only the standard library, because it runs with
``python -I -S``.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

INSTANCE_TAG = "_DAYBREAK_INSTANCE"
"""The environment variable that holds the tag. Variables named ``DAYBREAK_…`` are settings, hence the underscore."""
_TERM_S = 8.0
_KILL_S = 5.0


def tagged(tag: str) -> list[int]:
    """The processes with ``tag``, except this one.

    A process matches if its tag is ``tag``, or begins with ``tag`` and a slash. The tag of each process that ``up``
    starts is the tag of the instance, a slash and a name. So the tag of an instance matches all processes of the
    instance.

    All descendants of a process that matches are included, because some programs overwrite their environment with a
    title.
    """
    wanted = f"{INSTANCE_TAG}={tag}".encode()
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
        variables = (entry / "environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return any(variable == wanted or variable.startswith(wanted + b"/") for variable in variables) and (
        _parent(entry) is not None
    )


def _parent(entry: Path) -> int | None:
    """The parent of a live process; ``None`` if the process has ended."""
    try:
        state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
    except (OSError, ValueError):
        return None
    return None if state in "ZX" else int(parent)


def _from_ps(wanted: str) -> tuple[set[int], dict[int, int]]:
    command = ["ps", "-axww", "-E", "-o", "pid=,ppid=,command="]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    rows = [line.split(None, 2) for line in listed.splitlines()]
    matching = re.compile(rf" {re.escape(wanted)}(?=[/ ]|$)")
    found = {int(row[0]) for row in rows if len(row) == 3 and matching.search(row[2])}
    return found, {int(row[0]): int(row[1]) for row in rows if len(row) >= 2}


def end_all(tag: str, *, term_s: float = _TERM_S, spare: frozenset[int] = frozenset()) -> list[int]:
    """Stop every process with ``tag``, except those in ``spare``: SIGTERM, then SIGKILL after ``term_s``.

    :returns: the processes that survive.
    """
    _signal(tag, signal.SIGTERM, spare)
    survivors = _wait(tag, term_s, spare)
    if survivors:
        _signal(tag, signal.SIGKILL, spare)
        survivors = _wait(tag, _KILL_S, spare)
    return survivors


def _signal(tag: str, number: signal.Signals, spare: frozenset[int]) -> None:
    for pid in tagged(tag):
        if pid not in spare:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)


def _wait(tag: str, seconds: float, spare: frozenset[int]) -> list[int]:
    end = time.monotonic() + seconds
    while survivors := [pid for pid in tagged(tag) if pid not in spare]:
        if time.monotonic() > end:
            return survivors
        time.sleep(0.05)
    return []


def main() -> None:
    """Wait until the process at the other end of standard input ends. Unless that process wrote
    ``done``, end the processes that it left."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    tag = sys.argv[1]
    last_words = sys.stdin.buffer.read()
    if last_words != b"done":
        end_all(tag)


if __name__ == "__main__":
    main()
