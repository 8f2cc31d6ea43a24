"""Prints to a stdout that may be closed: ``daybreakd up | head -1`` continues to serve after ``head`` has exited."""

from __future__ import annotations

import contextlib
import os
import sys


def say(line: str) -> None:
    """Print a line on stdout. Once stdout is closed at the other end, this and all later lines are discarded."""
    try:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    except OSError:
        discard_output()


def discard_output() -> None:
    """Redirect stdout to ``/dev/null``, so that Python can flush its buffer at exit although the pipe is closed."""
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
