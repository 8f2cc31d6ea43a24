"""One queue for several groups of a process: settlements that come together share a call.

Tasks that take milliseconds are served by many small groups in one process, each with a thread of its own. While one
of these threads waits for the server, what the others have to settle gathers, and the next call carries all of it:
the server and the client then pay for one call what they would pay for each. Nobody waits for others to come.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from daybreak_server.adapters.redis.lua.settle import Ending
from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.domain.pools import GroupRecord
from daybreak_server.domain.tasks import Lease, Outcome, Settled
from daybreak_server.ports.store_errors import StoreError, StoreUnavailableError

AT_ONCE = 32
"""Endings in one call: more would keep the server from others for too long."""


class _PendingSettle:
    """One settlement on its way."""

    def __init__(self, ending: Ending) -> None:
        self.ending = ending
        self.answer: Settled | StoreError | None = None
        self._said = threading.Lock()
        self._said.acquire()

    def wait(self) -> None:
        """Until it is answered, or its thread is to send."""
        self._said.acquire()

    def wake(self) -> None:
        """End the wait."""
        self._said.release()


class SharedQueue(RedisQueue):
    """A :class:`RedisQueue` that threads share. Whoever opens it closes it; the last one closes the connections."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self._gate = threading.Lock()
        self._waiting: list[_PendingSettle] = []
        self._sending = False
        self._users = 0
        self._over = False

    def open(self) -> bool:
        """One more uses it; ``False`` where the last one has closed it already."""
        with self._gate:
            if not self._over:
                self._users += 1
            return not self._over

    def close(self) -> None:
        """One less uses it."""
        with self._gate:
            self._users -= 1
            self._over = self._users <= 0
        if self._over:
            super().close()

    def settle(self, lease: Lease, outcome: Outcome, *, claim_next: GroupRecord | None = None) -> Settled:
        """As :meth:`RedisQueue.settle`, with what other threads settle now."""
        mine = _PendingSettle((lease, outcome, claim_next))
        with self._gate:
            self._waiting.append(mine)
            sends, self._sending = not self._sending, True
        if not sends:
            mine.wait()
        if mine.answer is None:
            self._send()
        if isinstance(mine.answer, StoreError):
            raise mine.answer
        assert mine.answer is not None
        return mine.answer

    def _send(self) -> None:
        """Settle what waits, the caller's own first, and let the next that has come meanwhile send."""
        with self._gate:
            turns, self._waiting = self._waiting[:AT_ONCE], self._waiting[AT_ONCE:]
        try:
            self._answer(turns)
        finally:
            with self._gate:
                following = self._waiting[0] if self._waiting else None
                self._sending = following is not None
            for turn in turns[1:]:
                turn.wake()
            if following is not None:
                following.wake()

    def _answer(self, turns: list[_PendingSettle]) -> None:
        try:
            for turn, answer in zip(turns, self.settle_each([one.ending for one in turns]), strict=True):
                turn.answer = answer
            return
        except StoreUnavailableError as exc:
            for turn in turns:
                turn.answer = exc
        except StoreError:
            for turn in turns:  # one of them is at fault: the others must not pay for it
                turn.answer = self._alone(turn.ending)
        except BaseException as exc:
            for turn in turns:
                turn.answer = StoreUnavailableError(f"the call ended without an answer: {exc!r}")
            raise

    def _alone(self, ending: Ending) -> Settled | StoreError:
        try:
            return self.settle_each([ending])[0]
        except StoreError as exc:
            return exc


def shared_queue_factory(make: Callable[[], SharedQueue]) -> Callable[[], SharedQueue]:
    """Opens one queue for all that ask while it is open, and makes another where it was closed."""
    gate = threading.Lock()
    made: list[SharedQueue] = []

    def get() -> SharedQueue:
        with gate:
            if not made or not made[-1].open():
                made[:] = [make()]
                made[-1].open()
            return made[-1]

    return get
