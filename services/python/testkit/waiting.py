"""Wait for a condition instead of sleeping for a guessed time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")
_FIRST_PAUSE_S = 0.002
PAUSE_S = 0.1
"""The longest pause between two checks. The first pauses are shorter."""


def wait_until(
    predicate: Callable[[], T],
    timeout_s: float = 30.0,
    what: str = "the condition",
    *,
    pause_s: float = PAUSE_S,
) -> T:
    """Return the first truthy value of ``predicate``. :raises TimeoutError: with ``what`` and the last value."""
    end = time.monotonic() + timeout_s
    pause = min(_FIRST_PAUSE_S, pause_s)
    while True:
        value = predicate()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout_s:g} s for {what}; the last value was {value!r}")
        time.sleep(pause)
        pause = min(pause * 1.5, pause_s)


async def wait_until_async(
    predicate: Callable[[], Awaitable[T]],
    timeout_s: float = 30.0,
    what: str = "the condition",
    *,
    pause_s: float = PAUSE_S,
) -> T:
    """Like :func:`wait_until`, for a coroutine function."""
    end = time.monotonic() + timeout_s
    pause = min(_FIRST_PAUSE_S, pause_s)
    while True:
        value = await predicate()
        if value:
            return value
        if time.monotonic() > end:
            raise TimeoutError(f"waited {timeout_s:g} s for {what}; the last value was {value!r}")
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, pause_s)
