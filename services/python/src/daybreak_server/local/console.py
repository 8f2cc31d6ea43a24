"""Lines on stdout that outlive their reader: ``daybreakd up | head -1`` goes on serving when ``head`` has left."""

from __future__ import annotations

import contextlib
import os
import sys


def say(line: str) -> None:
    """A line on stdout. When nobody can read it any more, it and all that follow are dropped."""
    try:
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    except OSError:
        discard_output()


def discard_output() -> None:
    """Point stdout at nothing, or Python would complain of what it still holds when it ends."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
