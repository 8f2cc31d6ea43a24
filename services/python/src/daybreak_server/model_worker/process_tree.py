"""Finds and ends processes together with everything that they have started.

An engine may start processes that leave its session and its process group, so neither a signal to the group nor one to
the session reaches all of them. On Linux, a process can declare itself a *subreaper*. If a process below it loses its
parent, the subreaper becomes the new parent. The guardian of an engine (:mod:`~daybreak_server.model_worker.guardian`)
is a subreaper. So every process that the engine has ever started stays below the guardian. This module finds these
processes by the parent that ``/proc`` shows for each process.

The module imports the standard library only, because guardians run without other packages.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from pathlib import Path

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_POLL_S = 0.02


def become_subreaper() -> None:
    """Make this process adopt its descendants whose parents end. Has no effect if the kernel has no subreapers."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """Make the kernel kill this process when the thread that started it ends.

    ``parent`` is the id of the process of that thread. If that process has already ended, this process dies at once.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def parents() -> dict[int, int]:
    """The parent of each process that has not ended. The keys are process ids."""
    return {pid: parent for pid, (state, parent) in _stats().items() if state not in "ZX"}


def _stats() -> dict[int, tuple[str, int]]:
    """The state and the parent of each process. The keys are process ids."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                found[int(entry.name)] = state, int(parent)
    return found


def descendants(root: int, *, without: frozenset[int] = frozenset()) -> set[int]:
    """The processes below ``root``, except those in ``without`` and all processes below these."""
    listed = parents()
    found: set[int] = set()
    added = {root}
    while added:
        added = {pid for pid, parent in listed.items() if parent in added and pid not in found | without}
        found |= added
    return found


def reap() -> dict[int, int]:
    """Reap the children that have ended. Returns the exit code of each process, negative if a signal ended it.

    Call it only in a process in which nothing else waits for children.
    """
    ended = {}
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                break
            ended[pid] = os.waitstatus_to_exitcode(status)
    return ended


def kill_below(root: int, *, without: frozenset[int] = frozenset(), seconds: float = 60.0) -> bool:
    """Kill the processes that :func:`descendants` finds, also those that start during the call, until none is left.

    ``root`` must be a subreaper. In the end, the calling process reaps its ended children, except those in ``without``.

    :returns: whether all have ended within ``seconds``. A process that waits for a broken device cannot be killed.
    """
    end = time.monotonic() + seconds
    while pids := descendants(root, without=without):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > end:
            return False
        time.sleep(_POLL_S)
    for pid in _ended_children() - without:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return True


def _ended_children() -> set[int]:
    """The children of this process that have ended and have not been reaped."""
    me = os.getpid()
    return {pid for pid, (state, parent) in _stats().items() if parent == me and state == "Z"}
