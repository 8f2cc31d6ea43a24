"""One request and its answer, between the thread that runs the workload and the event loop that speaks HTTP.

The thread calls :meth:`Exchange.send` for each part that has bytes (or once, if no part has bytes), and at the end
one of ``finish``, ``fail`` and ``abandon``. The loop takes all parts so far with :meth:`Exchange.receive`. The buffer
is bounded: a thread that is more than ``BUFFER_BYTES`` ahead of the client waits in ``send``. So a slow client does not
fill the memory. It slows down only its own request, except in a group of several ranks, which runs one
request at a time.

Either side may stop the request. :meth:`Exchange.stop` takes a reason from :class:`Stop` and wakes both sides: ``send``
returns ``False``, and the loop sends the error response that belongs to the reason, or cuts off an answer that has
begun.

An exchange counts against the group's capacity until both sides have left it, because a workload that ignores
``cancelled`` still occupies the group after its client has gone.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import partial

from daybreak_server.engines.ranks.consensus import RankReport
from daybreak_server.engines.serving.answer_parts import AnswerPart
from daybreak_server.workloads.serving import Request

BUFFER_BYTES = 256 * 1024
_WAIT_S = 1.0


class Stop(StrEnum):
    """Why a request is no longer computed, although it has not been answered."""

    GONE = "gone"
    """The client has closed the connection, or reads nothing."""
    DEADLINE = "deadline"
    STALLED = "stalled"
    """The workload has shown no progress for longer than the limit, so the group ends."""
    BROKEN = "broken"
    """The group broke while it ran the request. Another group may answer it."""
    LEAVING = "leaving"
    """The group leaves or drains, and its time to finish requests is over. Or it broke before the request began."""


class Exchange:
    """See the module. ``on_left`` is called on the loop, once both sides have left."""

    def __init__(
        self, request: Request, *, loop: asyncio.AbstractEventLoop, on_left: Callable[[Exchange], None]
    ) -> None:
        self.request = replace(request, cancelled=self._cancelled)
        self._loop = loop
        self._on_left = on_left
        self._changed = threading.Condition()
        self._wake = asyncio.Event()
        self._parts: deque[AnswerPart] = deque()
        self._buffered = 0
        self._sides = 2
        self._ended = False
        self._finished = False
        self._failed: RankReport | None = None
        self._stop: Stop | None = None
        self._beat_at: float | None = None

    # ── the thread that works ────────────────────────────────────────────────────────────────────────────

    def begin(self) -> bool:
        """Begin to work on the request. Returns ``False`` if the request has been stopped."""
        self.beat()
        return self.stopped is None

    def beat(self) -> None:
        """Record that the work has advanced."""
        self._beat_at = time.monotonic()

    def send(self, part: AnswerPart) -> bool:
        """Pass on a part of the answer, once the buffer has room. Returns ``False`` if the request has been stopped.

        A wait for a slow client is not a stall. The loop disconnects a client that reads nothing for too
        long.
        """
        with self._changed:
            while self._buffered >= BUFFER_BYTES and self._stop is None:
                self._changed.wait(_WAIT_S)
                self.beat()
            if self.stopped is not None:
                return False
            self._parts.append(part)
            self._buffered += len(part.data)
        self.beat()
        self._notify()
        return True

    def finish(self) -> None:
        """Leave: all parts of the answer have been sent."""
        with self._changed:
            self._ended = self._finished = True
        self._leave()

    def abandon(self) -> None:
        """Leave without the rest of the answer, because the request has been stopped."""
        with self._changed:
            self._ended = True
        self._leave()

    def fail(self, report: RankReport) -> None:
        """Leave with an error."""
        with self._changed:
            self._failed, self._ended = report, True
        self._leave()

    def _cancelled(self) -> bool:
        self.beat()
        return self.stopped is not None

    # ── either side ──────────────────────────────────────────────────────────────────────────────────────

    @property
    def stopped(self) -> Stop | None:
        """Why the request is no longer computed, or ``None``."""
        if (
            self._stop is None
            and self.request.deadline is not None
            and time.monotonic() > self.request.deadline
        ):
            return Stop.DEADLINE
        return self._stop

    def stop(self, reason: Stop) -> None:
        """Stop the work on the request, and wake both sides. Only the first call sets the reason."""
        with self._changed:
            self._stop = self._stop or reason
            self._changed.notify_all()
        self._notify()

    @property
    def began(self) -> bool:
        """Whether the workload has begun with the request."""
        return self._beat_at is not None

    def silent_s(self, now: float) -> float:
        """Seconds for which the work has shown no sign of progress; 0 if it has not begun, or has ended."""
        beat_at = self._beat_at
        return 0.0 if beat_at is None or self._ended else now - beat_at

    # ── the loop ─────────────────────────────────────────────────────────────────────────────────────────

    async def receive(self) -> Sequence[AnswerPart]:
        """Wait for parts, and return all that are there.

        An empty result means that no more parts come: see :attr:`complete`, :attr:`failed` and :attr:`stopped`.
        """
        while True:
            self._wake.clear()
            with self._changed:
                parts = tuple(self._parts)
                if parts:
                    self._parts.clear()
                    self._buffered = 0
                    self._changed.notify_all()
                if parts or self._ended or self._stop is not None:
                    return parts
            await self._wake.wait()

    @property
    def failed(self) -> RankReport | None:
        """Why the workload failed, or ``None``."""
        return self._failed

    @property
    def complete(self) -> bool:
        """Whether the loop has received the whole answer."""
        with self._changed:
            return self._finished and not self._parts

    def leave_loop(self) -> None:
        """Leave on the side of the loop, when the answer has been sent or the client has gone."""
        self._leave()

    def _leave(self) -> None:
        with self._changed:
            self._sides -= 1
            last = self._sides == 0
        if last:
            self._on_loop(partial(self._on_left, self))
        self._notify()

    def _notify(self) -> None:
        self._on_loop(self._wake.set)

    def _on_loop(self, callback: Callable[[], None]) -> None:
        with contextlib.suppress(RuntimeError):  # the server has stopped, so no caller waits
            self._loop.call_soon_threadsafe(callback)
