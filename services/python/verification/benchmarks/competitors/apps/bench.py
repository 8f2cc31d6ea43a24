"""What the apps share: the run's settings and tally from the working directory, and the producer's two modes.

Standard library only, as each app runs in the environment of its own queue.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from verification.benchmarks.competitors.counter import Tally

TALLY = Tally(Path("tally"))


def run() -> dict[str, Any]:
    """Settings of this run: ``url``, and what the variant under test wants."""
    settings: dict[str, Any] = json.loads(Path("run.json").read_text())
    return settings


def produce(many: Callable[[int], None], one: Callable[[int], None]) -> None:
    """``produce N``: hand in N tasks by ``many``; ``light N RATE``: one by one, stamped with when they were."""
    mode, number = sys.argv[1], int(sys.argv[2])
    started = time.monotonic_ns()
    if mode == "produce":
        many(number)
    else:
        for at in range(number):
            _wait(started, at, float(sys.argv[3]), time.sleep)
            one(time.monotonic_ns())
    _tell(started)


async def produce_async(
    many: Callable[[int], Awaitable[None]], one: Callable[[int], Awaitable[None]]
) -> None:
    """The same for coroutines."""
    mode, number = sys.argv[1], int(sys.argv[2])
    started = time.monotonic_ns()
    if mode == "produce":
        await many(number)
    else:
        for at in range(number):
            due = started / 1e9 + at / float(sys.argv[3])
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await one(time.monotonic_ns())
    _tell(started)


async def at_once(number: int, width: int, make: Callable[[], Awaitable[Any]]) -> None:
    """``number`` calls, ``width`` of them at a time."""
    left = iter(range(number))

    async def lane() -> None:
        for _ in left:
            await make()

    await asyncio.gather(*(lane() for _ in range(width)))


def _wait(started: int, at: int, rate: float, sleep: Callable[[float], None]) -> None:
    sleep(max(0.0, started / 1e9 + at / rate - time.monotonic()))


def _tell(started: int) -> None:
    print(json.dumps({"started_ns": started, "ended_ns": time.monotonic_ns()}), flush=True)
