"""Finds and ends processes together with everything that they have started.

An engine may start processes that leave its session and its process group, so neither a signal to the group nor one to
the session reaches all of them. On Linux, a process can declare itself a *subreaper*: then a process below it whose
own parent ends stays below it. The guardian of an engine (:mod:`~daybreak_server.model_worker.guardian`) is one. So all
that the engine has ever started stays below the guardian, and can be found by following parents.

The module imports the standard library only, because guardians run without any other.
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
    """Adopt the descendants whose parents end. Does nothing where the kernel has no subreapers."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent(parent: int) -> None:
    """Get SIGKILL when the thread that started this process ends, or at once if its process has ended already.

    ``parent`` is the process of that thread.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


def parents() -> dict[int, int]:
    """Process → its parent, of all processes that have not ended."""
    return {pid: parent for pid, (state, parent) in _stats().items() if state not in "ZX"}


def _stats() -> dict[int, tuple[str, int]]:
    """Process → its state and its parent."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError):
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
                found[int(entry.name)] = state, int(parent)
    return found


def descendants(root: int, *, without: frozenset[int] = frozenset()) -> set[int]:
    """The processes below ``root``, but neither those in ``without`` nor what is below them."""
    listed = parents()
    found: set[int] = set()
    added = {root}
    while added:
        added = {pid for pid, parent in listed.items() if parent in added and pid not in found | without}
        found |= added
    return found


def reap() -> dict[int, int]:
    """Collect the children that have ended: process → exit code, negative for a signal.

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
    """Kill the processes that :func:`descendants` finds until none is left, also those that start during the call.

    ``root`` must be a subreaper. If none is left, the caller's children that have ended are reaped, except ``without``.

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
    """The children of this process that have ended and were not waited for."""
    me = os.getpid()
    return {pid for pid, (state, parent) in _stats().items() if parent == me and state == "Z"}
