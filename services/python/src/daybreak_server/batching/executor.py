"""Runs the batches of many callers on a separate thread.

Callers are threads, such as those that answer the requests of a group. Each of them waits for the results of its items.
If a batch raises an error, each half runs again, and so on. So a caller gets this error only if one of its items raises
it when the item runs alone. The callers of the other items only wait for the repeats. If a batch is too large for the
memory, its halves may still succeed. After an error that breaks the device, all callers get errors.
"""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from daybreak_server.batching.batcher import INTERACTIVE, Batcher, BatchItem
from daybreak_server.batching.rules import Rules

P = TypeVar("P")
R = TypeVar("R")
CANCEL_CHECK_S = 0.1
"""How often a waiting caller checks whether its client has disconnected."""


class ExpiredError(Exception):
    """The deadline passed while an item still waited for its batch."""


class CancelledError(Exception):
    """No client waits for the results any more."""


class ClosedError(Exception):
    """The executor has been closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchReport:
    """The outcome of one batch."""

    size: int
    """The number of items in the batch."""
    seconds: float
    """How long the batch took, with its repeats."""
    waited_s: float | None
    """The longest time that an item waited for the batch. Items with a priority number above 0 do not count, because
    no client waits for them; ``None`` if the batch has only such items."""
    failed: bool
    """Whether the batch raised an error at its first run."""


class _Call(Generic[R]):
    """The items of one caller."""

    def __init__(self, count: int) -> None:
        self.results: list[R | None] = [None] * count
        self.missing = count
        self.error: BaseException | None = None
        self.done = threading.Event()

    def put(self, position: int, result: R) -> None:
        self.results[position] = result
        self.missing -= 1
        if not self.missing:
            self.done.set()

    def fail(self, error: BaseException) -> None:
        self.error = self.error or error
        self.done.set()


class BatchExecutor(Generic[P, R]):
    """Computes inputs in batches. ``run`` gets the inputs of a batch and returns a result for each, in their order.

    ``run`` is called on one thread only. ``observe`` gets a report of each batch.
    """

    def __init__(
        self,
        run: Callable[[Sequence[P]], Sequence[R]],
        rules: Rules,
        *,
        observe: Callable[[BatchReport], None] = lambda report: None,
    ) -> None:
        self._run_batch = run
        self._observe = observe
        self._batcher: Batcher[int] = Batcher(rules)
        self._inputs: dict[int, tuple[P, _Call[R], int]] = {}
        self._keys = itertools.count()
        self._changed = threading.Condition()
        self._closed = False
        threading.Thread(target=self._work, name="batches", daemon=True).start()

    @property
    def rules(self) -> Rules:
        """The rules of the next batch. They may be set at any time."""
        return self._batcher.rules

    @rules.setter
    def rules(self, rules: Rules) -> None:
        with self._changed:
            self._batcher.rules = rules
            self._changed.notify()

    @property
    def waiting(self) -> int:
        """How many items wait, including those of bulk work."""
        return len(self._batcher)

    @property
    def counted(self) -> int:
        """How many of the waiting items count against ``max_waiting``: all except those of bulk work."""
        return self._batcher.counted

    def sizes(self) -> dict[int, int]:
        """The number of batches of each size."""
        with self._changed:
            return dict(sorted(self._batcher.sizes.items()))

    def compute(
        self,
        inputs: Sequence[P],
        lengths: Sequence[int],
        *,
        priority: int = INTERACTIVE,
        deadline: float = math.inf,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> list[R]:
        """Wait for the results of the inputs, and return them in the order of the inputs.

        :param lengths: tokens of each input.
        :param deadline: the time of ``time.monotonic()`` after which the results are not needed.
        :param cancelled: returns whether the caller's client has disconnected. Called ten times a second.
        :raises FullError: if there is no room for all inputs to wait. Then none of them is computed.
        :raises ExpiredError: if the deadline passed while an input still waited for its batch.
        :raises CancelledError: if ``cancelled`` returned true.
        :raises ClosedError: if the executor is closed.
        :raises Exception: what ``run`` raised when it ran one of these inputs alone.
        """
        if not inputs:
            return []
        call: _Call[R] = _Call(len(inputs))
        keys = self._add(inputs, lengths, call, priority, deadline)
        try:
            while not call.done.wait(CANCEL_CHECK_S):
                if cancelled():
                    raise CancelledError("The client has gone.")
        finally:
            if call.missing:
                self._forget(keys)
        if call.error is not None:
            raise call.error
        return call.results  # type: ignore[return-value]

    def close(self) -> None:
        """End the thread after its present batch. Callers with items that wait for a batch get
        :class:`ClosedError`."""
        with self._changed:
            self._closed = True
            calls = [call for _, call, _ in self._inputs.values()]
            self._changed.notify()
        for call in calls:
            call.fail(ClosedError("The executor has been closed."))

    def _add(
        self, inputs: Sequence[P], lengths: Sequence[int], call: _Call[R], priority: int, deadline: float
    ) -> list[int]:
        now = time.monotonic()
        keys: list[int] = []
        with self._changed:
            if self._closed:
                raise ClosedError("The executor has been closed.")
            self._batcher.check_room(len(inputs), priority=priority)
            for position, (given, tokens) in enumerate(zip(inputs, lengths, strict=True)):
                key = next(self._keys)
                self._batcher.add(
                    BatchItem(key=key, tokens=tokens, arrived=now, priority=priority, deadline=deadline)
                )
                self._inputs[key] = given, call, position
                keys.append(key)
            self._changed.notify()
        return keys

    def _forget(self, keys: list[int]) -> None:
        with self._changed:
            for key in keys:
                self._batcher.cancel(key)
                self._inputs.pop(key, None)

    def _work(self) -> None:
        while True:
            batch = self._next_batch()
            if batch is None:
                return
            began = time.monotonic()
            with self._changed:  # items whose callers have left are not computed
                entries = [found for item in batch if (found := self._inputs.pop(item.key, None)) is not None]
            if not entries:
                continue
            clean = self._compute(entries)
            seconds = time.monotonic() - began
            if clean:  # with repeats, the time says nothing about batches of this size
                with self._changed:
                    self._batcher.complete(batch, seconds)
            waits = [began - item.arrived for item in batch if item.priority <= 0]
            self._observe(
                BatchReport(
                    size=len(batch), seconds=seconds, waited_s=max(waits, default=None), failed=not clean
                )
            )

    def _next_batch(self) -> tuple[BatchItem[int], ...] | None:
        with self._changed:
            while not self._closed:
                now = time.monotonic()
                decision = self._batcher.next(now)
                for item in decision.expired:
                    entry = self._inputs.pop(item.key, None)
                    if entry is not None:
                        entry[1].fail(ExpiredError("The deadline passed before the input was computed."))
                if decision.batch:
                    return decision.batch
                self._changed.wait(None if decision.wake_at is None else max(0.0, decision.wake_at - now))
        return None

    def _compute(self, entries: list[tuple[P, _Call[R], int]]) -> bool:
        """Compute a batch and deliver its results. Returns whether ``run`` succeeded at the first try."""
        try:
            results = self._run_batch([given for given, _, _ in entries])
            if len(results) != len(entries):
                raise RuntimeError(f"{len(results)} results for a batch of {len(entries)}")
        except BaseException as exc:
            if len(entries) == 1:
                entries[0][1].fail(exc)
            else:
                half = len(entries) // 2
                for part in (entries[:half], entries[half:]):
                    # Items whose callers have got an error are left out. If no item is left, nothing runs.
                    if wanted := [entry for entry in part if entry[1].error is None]:
                        self._compute(wanted)
            return False
        for (_, call, position), result in zip(entries, results, strict=True):
            call.put(position, result)
        return True
