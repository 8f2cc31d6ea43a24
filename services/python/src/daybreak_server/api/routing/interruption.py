"""Ends what a request waits for: at its deadline, when its client has gone, or when its group is lost.

The server tells whether the client has gone only to a caller that waits for it, which takes an asyncio task. Most
requests end sooner than a client can lose its patience, so the task starts only after ``WATCH_AFTER_S``.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from starlette.types import Receive

WATCH_AFTER_S = 0.1


class Interruptible:
    """A block that ends with ``TimeoutError`` at the deadline, or early by :meth:`interrupt`.

    ``deadline`` is a time of the event loop's clock.
    """

    def __init__(self, deadline: float) -> None:
        self._timeout = asyncio.timeout_at(deadline)
        self._active = False

    async def __aenter__(self) -> Self:
        await self._timeout.__aenter__()
        self._active = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._active = False
        await self._timeout.__aexit__(kind, error, trace)

    def interrupt(self) -> None:
        """End the block as soon as possible."""
        if self._active and not self._timeout.expired():
            self._active = False
            self._timeout.reschedule(0.0)


class ClientWatch:
    """Watches whether the client is still connected, once its whole request has been read."""

    def __init__(self, receive: Receive) -> None:
        self.gone = False
        self._receive = receive
        self._current: Interruptible | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to watch, a moment from now."""
        if self._timer is None and self._task is None:
            self._timer = asyncio.get_running_loop().call_later(WATCH_AFTER_S, self._watch)

    def until(self, deadline: float) -> Interruptible:
        """A block that ends early if the client goes."""
        self._current = Interruptible(deadline)
        return self._current

    def stop(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def _watch(self) -> None:
        self._timer = None
        self._task = asyncio.create_task(self._wait())

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        if self._current is not None:
            self._current.interrupt()
