"""One queue for several groups of a process. It settles attempts in batches.

Tasks that take milliseconds are served by many small groups in one process, each with a thread. A batch costs the
server and the client about as much as a single settle, so threads share calls, as in a database's group commit:

- A thread adds its settle to the waiting ones. If no other thread is sending, this thread sends up to ``BATCH_MAX``
  waiting settles in one call.
- While that call runs, the settles of other threads accumulate. The sender then wakes the threads of its batch and one
  waiting thread, which sends the next batch.

No thread delays its own call in the hope that others will join.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from daybreak_server.adapters.redis.lua.settle import AttemptEnd
from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.domain.pools import GroupRecord
from daybreak_server.domain.tasks import Lease, Outcome, Settled
from daybreak_server.ports.store_errors import StoreError, StoreUnavailableError

BATCH_MAX = 32
"""Settles in one call. More would block the server for too long."""


class _PendingSettle:
    """A settle that waits for its result."""

    def __init__(self, end: AttemptEnd) -> None:
        self.end = end
        self.result: Settled | StoreError | None = None
        self._wakeup = threading.Lock()
        self._wakeup.acquire()

    def wait(self) -> None:
        """Block until the result is known, or until this thread must send the next batch."""
        self._wakeup.acquire()

    def wake(self) -> None:
        """End :meth:`wait`."""
        self._wakeup.release()


class SharedQueue(RedisQueue):
    """A :class:`RedisQueue` that threads share. Each user opens and closes it; the last one closes the connections."""

    def __init__(self, *args: object, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self._lock = threading.Lock()
        self._waiting: list[_PendingSettle] = []
        self._sending = False
        self._users = 0
        self._finished = False

    def open(self) -> bool:
        """Add a user. ``False`` if the last user has already closed the queue."""
        with self._lock:
            if not self._finished:
                self._users += 1
            return not self._finished

    def close(self) -> None:
        """Remove a user. The last one closes the connections."""
        with self._lock:
            self._users -= 1
            self._finished = self._users <= 0
        if self._finished:
            super().close()

    def settle(self, lease: Lease, outcome: Outcome, *, claim_next: GroupRecord | None = None) -> Settled:
        """Like :meth:`RedisQueue.settle`, in one call with the settles of other threads."""
        pending = _PendingSettle((lease, outcome, claim_next))
        with self._lock:
            self._waiting.append(pending)
            is_sender, self._sending = not self._sending, True
        if not is_sender:
            pending.wait()
        if pending.result is None:
            self._send()
        if isinstance(pending.result, StoreError):
            raise pending.result
        assert pending.result is not None
        return pending.result

    def _send(self) -> None:
        """Settle waiting attempts, the caller's own first. Then wake the threads of the batch and the next sender."""
        with self._lock:
            batch, self._waiting = self._waiting[:BATCH_MAX], self._waiting[BATCH_MAX:]
        try:
            self._settle_batch(batch)
        finally:
            with self._lock:
                next_sender = self._waiting[0] if self._waiting else None
                self._sending = next_sender is not None
            for pending in batch[1:]:
                pending.wake()
            if next_sender is not None:
                next_sender.wake()

    def _settle_batch(self, batch: list[_PendingSettle]) -> None:
        try:
            for pending, result in zip(
                batch, self.settle_each([pending.end for pending in batch]), strict=True
            ):
                pending.result = result
            return
        except StoreUnavailableError as exc:
            for pending in batch:
                pending.result = exc
        except StoreError:
            for pending in batch:  # one of them caused the error, and the others must not fail with it
                pending.result = self._settle_alone(pending.end)
        except BaseException as exc:
            for pending in batch:
                pending.result = StoreUnavailableError(f"the settle ended without a reply: {exc!r}")
            raise

    def _settle_alone(self, end: AttemptEnd) -> Settled | StoreError:
        try:
            return self.settle_each([end])[0]
        except StoreError as exc:
            return exc


def shared_queue_factory(make: Callable[[], SharedQueue]) -> Callable[[], SharedQueue]:
    """A function that returns a queue shared by all callers, and makes a new one after the last user closed it."""
    lock = threading.Lock()
    current: list[SharedQueue] = []

    def get() -> SharedQueue:
        with lock:
            if not current or not current[0].open():
                current[:] = [make()]
                current[0].open()
            return current[0]

    return get
