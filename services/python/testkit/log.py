"""Prints log lines with the seconds since the program started."""

from __future__ import annotations

import threading
import time

_started = time.monotonic()
_lock = threading.Lock()


def elapsed_s() -> float:
    """Seconds since the program started."""
    return time.monotonic() - _started


def log(text: str) -> None:
    """Print a line at once, with the elapsed seconds."""
    with _lock:
        print(f"[{elapsed_s():7.1f} s] {text}", flush=True)
