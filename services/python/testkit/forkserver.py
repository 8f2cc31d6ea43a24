"""multiprocessing's fork server for tests, with large packages imported before it forks.

A process has only one fork server, which preloads only the modules that were named before it started. So if
``context`` gets other modules than before, it first stops the old server. Without preloading, each rank would import
torch and diffusers itself, which takes many seconds of CPU.

The server ends by itself only after this process and all children of the server have ended. multiprocessing has no
public way to stop it sooner. So this module uses the private ``_stop``, as multiprocessing's own tests do. If ``_stop``
is missing, the server just ends later.
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
    """A context whose processes have already imported ``modules``."""
    global _preloaded  # noqa: PLW0603 - multiprocessing has one server per process
    if _preloaded not in (None, modules):
        stop()
    _preloaded = modules
    server_context = multiprocessing.get_context("forkserver")
    server_context.set_forkserver_preload(list(modules))
    return server_context


def stop() -> None:
    """Stop the server if it runs. Its children keep running, and each test stops the children that it started."""
    global _preloaded  # noqa: PLW0603 - as above
    _preloaded = None
    server = forkserver._forkserver
    pid, end = getattr(server, "_forkserver_pid", None), getattr(server, "_stop", None)
    if pid is not None and end is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)  # otherwise `end` would wait for all children
        end()


def tracker_pid() -> int | None:
    """The pid of the resource tracker, which removes leaked shared memory and ends after this process."""
    return getattr(resource_tracker._resource_tracker, "_pid", None)
