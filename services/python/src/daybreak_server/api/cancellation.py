"""Ending tasks for certain.

One ``cancel`` is not enough on Python 3.11: ``asyncio.wait_for``, which redis-py puts around every command it
sends, swallows a cancel that comes in the moment when the command is sent.
"""

from __future__ import annotations

import asyncio
from typing import Any

_AGAIN_S = 0.5


async def ended(*tasks: asyncio.Task[Any]) -> None:
    """Cancel until they have ended. Their exceptions are looked at, so that asyncio does not complain of them."""
    left = {task for task in tasks if not task.done()}
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=_AGAIN_S)
    for task in tasks:
        if not task.cancelled():
            task.exception()


class TaskReaper:
    """Tasks that are being ended aside, for callers that cannot wait."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Task[None]] = set()

    def end(self, task: asyncio.Task[Any]) -> None:
        """Cancel it now, and see to it that it ends."""
        task.cancel()
        ending = asyncio.create_task(ended(task))
        self._under_way.add(ending)
        ending.add_done_callback(self._under_way.discard)

    async def all(self) -> None:
        """Wait until all have ended."""
        while self._under_way:
            await asyncio.wait(self._under_way)
