"""What the apps of the compared queues share: the settings of the run, the counter, and the producer's two modes.

Besides the module ``counter``, this module imports only the standard library, because each app runs in the virtual
environment of its queue. The app's working directory has the settings and the counter's files.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from verification.benchmarks.competitors.counter import Counter

COUNTER = Counter(Path("counter"))


def run() -> dict[str, Any]:
    """The settings of this run: ``url``, and the settings of the variant under test."""
    settings: dict[str, Any] = json.loads(Path("run.json").read_text())
    return settings


def produce(many: Callable[[int], None], single: Callable[[int], None]) -> None:
    """Submit tasks as the command line says. ``produce N`` submits N tasks with one call of ``many``. ``light N RATE``
    submits N tasks, RATE of them a second. For each task, it calls ``single`` with the time of the submit.
    """
    mode, number = sys.argv[1], int(sys.argv[2])
    started = time.monotonic_ns()
    if mode == "produce":
        many(number)
    else:
        for at in range(number):
            _wait(started, at, float(sys.argv[3]), time.sleep)
            single(time.monotonic_ns())
    _print_times(started)


async def produce_async(
    many: Callable[[int], Awaitable[None]], single: Callable[[int], Awaitable[None]]
) -> None:
    """The same as :func:`produce`, for functions that are coroutines."""
    mode, number = sys.argv[1], int(sys.argv[2])
    started = time.monotonic_ns()
    if mode == "produce":
        await many(number)
    else:
        for at in range(number):
            due = started / 1e9 + at / float(sys.argv[3])
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            await single(time.monotonic_ns())
    _print_times(started)


async def at_once(number: int, width: int, make: Callable[[], Awaitable[Any]]) -> None:
    """Make ``number`` calls, ``width`` of them at a time."""
    numbers = iter(range(number))

    async def worker() -> None:
        for _ in numbers:
            await make()

    await asyncio.gather(*(worker() for _ in range(width)))


def _wait(started: int, at: int, rate: float, sleep: Callable[[float], None]) -> None:
    sleep(max(0.0, started / 1e9 + at / rate - time.monotonic()))


def _print_times(started: int) -> None:
    print(json.dumps({"started_ns": started, "ended_ns": time.monotonic_ns()}), flush=True)
