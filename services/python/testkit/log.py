"""Lines with a time, as things happen."""

from __future__ import annotations

import threading
import time

_started = time.monotonic()
_lock = threading.Lock()


def passed_s() -> float:
    """Seconds since the start."""
    return time.monotonic() - _started


def say(text: str) -> None:
    """Print at once, with the seconds since the start."""
    with _lock:
        print(f"[{passed_s():7.1f} s] {text}", flush=True)
