"""Cancels asyncio tasks and makes sure that they end.

One ``cancel`` is not enough on Python 3.11. redis-py sends each command inside ``asyncio.wait_for``, and ``wait_for``
swallows a cancel that arrives at the moment when the command has been sent.
"""

from __future__ import annotations

import asyncio
from typing import Any

_CANCEL_AGAIN_S = 0.5


async def cancel_and_wait(*tasks: asyncio.Task[Any]) -> None:
    """Cancel the tasks, repeatedly, until all have ended.

    Their exceptions are retrieved, so that asyncio does not log them as never retrieved.
    """
    pending = {task for task in tasks if not task.done()}
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_S)
    for task in tasks:
        if not task.cancelled():
            task.exception()


class TaskReaper:
    """Cancels tasks in the background, for callers that cannot wait until the tasks end."""

    def __init__(self) -> None:
        self._cancelling: set[asyncio.Task[None]] = set()

    def cancel(self, task: asyncio.Task[Any]) -> None:
        """Cancel the task now and keep cancelling it until it ends."""
        task.cancel()
        cancelling = asyncio.create_task(cancel_and_wait(task))
        self._cancelling.add(cancelling)
        cancelling.add_done_callback(self._cancelling.discard)

    async def wait_all(self) -> None:
        """Wait until all cancelled tasks have ended."""
        while self._cancelling:
            await asyncio.wait(self._cancelling)
