"""Lines with a time, as things happen."""

from __future__ import annotations

import threading
import time

_started = time.monotonic()
_lock = threading.Lock()


def say(text: str) -> None:
    """Print at once, with the seconds since the start."""
    with _lock:
        print(f"[{time.monotonic() - _started:7.1f} s] {text}", flush=True)
