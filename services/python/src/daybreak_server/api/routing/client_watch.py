"""Interrupts a request that waits: at its deadline, when its client has gone, or when its group is lost.

To learn that the client has gone, an asyncio task must wait for the disconnect. Most requests end before a client would
give up, so the asyncio task starts only after ``WATCH_AFTER_S``.

A timer of the event loop for each request would cost as much as choosing a group. So all requests share one timer
(:class:`WatchTimer`). It tells the watch of each request when ``WATCH_AFTER_S`` have passed. A request gets a timer of
its own, for its deadline, only if it takes longer than ``WATCH_AFTER_S``, or if its deadline comes before then.

The code that may be interrupted runs in blocks (``async with watch.block():``). A block works like ``asyncio.timeout``,
but has no timer of its own: entering three blocks of ``asyncio.timeout`` took as long as choosing a group.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Self

from starlette.types import Receive

WATCH_AFTER_S = 0.1


class Interruptible:
    """A block that ends with ``TimeoutError`` after :meth:`interrupt`."""

    __slots__ = ("_cancelling", "_interrupted", "_loop", "_task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._task: asyncio.Task[object] | None = None
        """The asyncio task that runs the block; ``None`` outside the block."""
        self._cancelling = 0
        self._interrupted = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.current_task(self._loop)
        assert self._task is not None
        self._cancelling = self._task.cancelling()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        task, self._task = self._task, None
        if (
            self._interrupted
            and task is not None
            and task.uncancel() <= self._cancelling
            and kind is asyncio.CancelledError
        ):
            raise TimeoutError from error

    def interrupt(self) -> None:
        """End the block as soon as possible. Does nothing outside the block, or at a second call."""
        if self._task is not None and not self._interrupted:
            self._interrupted = True
            self._task.cancel()


class WatchTimer:
    """Tells each watch when ``WATCH_AFTER_S`` have passed, unless the watch has stopped.

    All watches wait equally long, so the one that was added first is always the next.
    """

    def __init__(self) -> None:
        self._waiting: deque[ClientWatch] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        """The loop on which the timer runs; ``None`` while no timer runs."""

    def add(self, watch: ClientWatch, loop: asyncio.AbstractEventLoop) -> None:
        """Call ``watch.is_time()`` after ``WATCH_AFTER_S``."""
        self._waiting.append(watch)
        if self._loop is not loop:
            self._start(watch, loop)

    def _start(self, watch: ClientWatch, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        loop.call_at(watch.watch_at, self._ring, loop)

    def _ring(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop, now = None, loop.time()
        while self._waiting:
            watch = self._waiting[0]
            if not watch.stopped and watch.watch_at > now:
                self._start(watch, loop)
                return
            self._waiting.popleft()
            watch.is_time()


class ClientWatch:
    """Ends the blocks of one request at its deadline, or as soon as its client has gone.

    ``deadline`` is a time of the event loop's clock. Call :meth:`stop` at the end.
    """

    def __init__(self, receive: Receive, *, deadline: float, timer: WatchTimer) -> None:
        self.gone = False
        self.stopped = False
        self._receive: Receive | None = receive
        self._deadline = deadline
        self._current: Interruptible | None = None
        self._over = False
        """Whether the deadline has passed, or the client has gone."""
        self._may_watch = False
        self._is_time = False
        """Whether ``WATCH_AFTER_S`` have passed."""
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._deadline_timer: asyncio.TimerHandle | None = None
        self.watch_at = self._loop.time() + WATCH_AFTER_S
        """The time from which the client may be watched."""
        if self.watch_at < deadline:
            timer.add(self, self._loop)
        else:
            self._deadline_timer = self._loop.call_at(deadline, self._end)

    def start(self) -> None:
        """Watch the client from now on, but not before ``WATCH_AFTER_S`` have passed.

        Call this when nothing reads the request's body any more.
        """
        self._may_watch = True
        if self._is_time:
            self._watch()

    def block(self) -> Interruptible:
        """A block of this request."""
        self._current = current = Interruptible(self._loop)
        if self._over:
            self._loop.call_soon(current.interrupt)
        return current

    def stop(self) -> None:
        """Stop watching."""
        self.stopped = True
        self._receive = self._current = None  # frees both, although the timer may still hold this watch
        if self._deadline_timer is not None:
            self._deadline_timer.cancel()
        if self._task is not None:
            self._task.cancel()

    def is_time(self) -> None:
        """The timer calls this when ``WATCH_AFTER_S`` have passed."""
        if self.stopped:
            return
        self._is_time = True
        self._deadline_timer = self._loop.call_at(self._deadline, self._end)
        if self._may_watch:
            self._watch()

    def _watch(self) -> None:
        if self._task is None:
            self._task = self._loop.create_task(self._wait())

    async def _wait(self) -> None:
        receive = self._receive
        if receive is None:
            return
        while (await receive())["type"] != "http.disconnect":
            pass
        self.gone = True
        self._end()

    def _end(self) -> None:
        self._over = True
        if self._current is not None:
            self._current.interrupt()
