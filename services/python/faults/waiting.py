"""Waiting for something to become true, instead of sleeping and hoping."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], timeout_s: float, what: str) -> T:
    """The first truthy value. :raises TimeoutError: naming ``what``, after ``timeout_s``."""
    end = time.monotonic() + timeout_s
    pause = 0.002
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout_s:g} s for {what}; the last value was {value!r}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)
