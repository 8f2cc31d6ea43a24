"""Waiting for what a cluster does, by looking."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PAUSE_S = 0.5


def wait_until(predicate: Callable[[], T], *, timeout_s: float, what: str, pause_s: float = PAUSE_S) -> T:
    """The first truthy value of ``predicate``. :raises TimeoutError: naming ``what`` and the last value."""
    end = time.monotonic() + timeout_s
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout_s:g} s for {what}; the last look gave {value!r}")
        time.sleep(pause_s)


def stays(predicate: Callable[[], bool], *, for_s: float, what: str, pause_s: float = PAUSE_S) -> None:
    """``predicate`` holds at every look for so long. :raises AssertionError: when it does not."""
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        assert predicate(), f"{what}: it did not stay so"
        time.sleep(pause_s)
