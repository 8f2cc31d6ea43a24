"""Waiting for something to become true, instead of sleeping and hoping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


def wait_until(predicate: Callable[[], T], timeout: float = 30.0, what: str = "the condition") -> T:
    """The first truthy value of ``predicate``. :raises TimeoutError: naming ``what``, after ``timeout`` s."""
    end = time.monotonic() + timeout
    pause = 0.005
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout:g} s for {what}; the last value was {value!r}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.1)


async def wait_until_async(
    predicate: Callable[[], Awaitable[T]], timeout: float = 30.0, what: str = "the condition"
) -> T:
    """The same for a coroutine function. :raises TimeoutError: after ``timeout`` seconds, naming ``what``."""
    end = time.monotonic() + timeout
    pause = 0.005
    while True:
        value = await predicate()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout:g} s for {what}; the last value was {value!r}")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, 0.1)
