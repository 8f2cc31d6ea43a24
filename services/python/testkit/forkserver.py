"""multiprocessing's fork server for tests, which has imported large packages before it makes a process.

A test process has one, and it imports only what it was given before it started. So a server that was started for
other modules is stopped first: a rank that has to import torch and diffusers itself takes many seconds of CPU.

The server ends by itself only after this process and all its children have ended. multiprocessing has no public way to
end it sooner; its own tests use ``_stop``. Without that it is only later, or slower.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import ForkServerContext

_preloaded: tuple[str, ...] | None = None


def context(*modules: str) -> ForkServerContext:
    """Makes processes that have imported ``modules`` already."""
    global _preloaded  # multiprocessing has one server for a process
    if _preloaded not in (None, modules):
        stop()
    _preloaded = modules
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(list(modules))
    return found


def stop() -> None:
    """End the server where it runs. Its children stay: they are their tests' to end."""
    global _preloaded
    _preloaded = None
    server = forkserver._forkserver
    pid, end = getattr(server, "_forkserver_pid", None), getattr(server, "_stop", None)
    if pid is not None and end is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)  # or `end` would wait for all children
        end()


def tracker() -> int | None:
    """The process that removes leaked shared memory when this process has ended, which is when it ends itself."""
    return getattr(resource_tracker._resource_tracker, "_pid", None)
