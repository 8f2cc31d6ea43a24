"""Chooses the items of the next batch.

Items wait in one queue for each priority and *length bucket*. A batch has items of one bucket, because a device pads
all of them to the length of the longest. The mode (:class:`.Mode`) decides which items may start. Of these, the
batch begins with the item of the best priority; if several have this priority, with the one that has waited longest.
Items of the same bucket join the batch in the order of priority and arrival, until it has ``max_batch_size`` items (in
the mode ``adaptive``, perhaps fewer) or its padded size (items × longest item) would exceed ``max_batch_tokens``.

Items of bulk work, such as the lines of a file, have the priority ``BULK`` or a higher number. A batch begins with one
of them only while no other item may start. So a more urgent item waits at most for the one batch of bulk work that
already runs. Bulk items also fill the free places of other batches. They do not count against ``max_waiting``, because
otherwise bulk work would make the group refuse requests.

Cancelled and expired items leave the queues before they are computed. On average, no operation is linear in the number
of items that wait, except a change of the buckets. A decision is linear in the number of buckets and priorities that
have items, in the number of items that expire, and in the size of its batch.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter, OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeAlias, TypeVar

from daybreak_server.batching.adaptive import SizeLimits
from daybreak_server.batching.rules import Mode, Rules

K = TypeVar("K", bound=Hashable)
INTERACTIVE = 0
"""The priority of items for which a client waits."""
BULK = 100
"""Items of bulk work have this priority or a higher number. The code that adds them limits how many wait."""


class FullError(Exception):
    """More than ``max_waiting`` items would wait, not counting those of bulk work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchItem(Generic[K]):
    """One unit of work. Times are seconds, all by the same clock; which clock makes no difference."""

    key: K
    tokens: int
    """Its length; at least 1."""
    arrived: float
    priority: int = INTERACTIVE
    """Lower numbers go first."""
    deadline: float = math.inf
    """The deadline, after which no caller needs the result."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision(Generic[K]):
    """The decision for an idle executor."""

    batch: tuple[BatchItem[K], ...] = ()
    """The items to work on now; none if the executor waits."""
    expired: tuple[BatchItem[K], ...] = ()
    """Items that have left their queues because their deadline has passed."""
    wake_at: float | None = None
    """When to ask for the next decision if no item is added until then. With ``None``, ask only after an item has been
    added."""


Queue: TypeAlias = "OrderedDict[K, BatchItem[K]]"
"""Items in the order in which they were added. Any of them can leave in constant time."""


@dataclass(slots=True)
class _Bucket(Generic[K]):
    """The items of similar length: a queue for each priority that has items."""

    queues: dict[int, Queue[K]] = field(default_factory=dict)
    count: int = 0


class Batcher(Generic[K]):
    """The items that wait for one executor. Add them in the order of their arrival."""

    def __init__(self, rules: Rules) -> None:
        self._rules = rules
        self._waiting: Queue[K] = OrderedDict()
        self._bulk_waiting = 0
        self._buckets: dict[int, _Bucket[K]] = {}
        self._deadlines: list[tuple[float, int, BatchItem[K]]] = []
        self._added = 0
        self._limits = SizeLimits()
        self.sizes: Counter[int] = Counter()
        """The number of batches, by how many items they had."""

    def __len__(self) -> int:
        """How many items wait, those of bulk work included."""
        return len(self._waiting)

    @property
    def counted(self) -> int:
        """The number of waiting items that count against ``max_waiting``, which are all but those of bulk
        work."""
        return len(self._waiting) - self._bulk_waiting

    def __contains__(self, key: object) -> bool:
        """Whether the item waits."""
        return key in self._waiting

    @property
    def rules(self) -> Rules:
        """The rules of the next batch."""
        return self._rules

    @rules.setter
    def rules(self, rules: Rules) -> None:
        resort = rules.similar != self._rules.similar
        self._rules = rules
        if resort:
            self._limits = SizeLimits()
            self._buckets = {}
            for item in self._waiting.values():
                self._enqueue(item)

    def check_room(self, count: int, *, priority: int = INTERACTIVE) -> None:
        """Check that ``count`` items may be added. For bulk items, the check always passes.

        :raises FullError: if too many items would wait.
        """
        if priority < BULK and self.counted + count > self._rules.max_waiting:
            raise FullError(f"{self.counted} of at most {self._rules.max_waiting} items wait already.")

    def add(self, item: BatchItem[K]) -> None:
        """Add an item to its queue.

        :raises FullError: if too many wait already.
        :raises ValueError: if an item with the same key already waits, or the length is not positive.
        """
        if item.tokens < 1:
            raise ValueError(f"An item has {item.tokens} tokens; it must have at least 1.")
        if item.key in self._waiting:
            raise ValueError(f"The item {item.key!r} waits already.")
        self.check_room(1, priority=item.priority)
        self._waiting[item.key] = item
        self._bulk_waiting += item.priority >= BULK
        self._enqueue(item)
        if item.deadline < math.inf:
            self._added += 1
            heapq.heappush(self._deadlines, (item.deadline, self._added, item))

    def cancel(self, key: K) -> bool:
        """Remove an item. Returns whether it waited."""
        item = self._waiting.get(key)
        if item is None:
            return False
        self._leave(item)
        return True

    def next(self, now: float) -> Decision[K]:
        """Decide what an idle executor does next."""
        expired = tuple(self._expire(now))
        seed = self._seed(now)
        if seed is None:
            return Decision(expired=expired, wake_at=self._wake_at())
        batch = tuple(self._chosen(seed))
        for item in batch:
            self._leave(item)
        self.sizes[len(batch)] += 1
        return Decision(batch=batch, expired=expired)

    def complete(self, batch: tuple[BatchItem[K], ...], seconds: float) -> None:
        """Record how long the executor worked on a batch. The mode ``adaptive`` learns from it."""
        self._limits.observe(self._bucket_of(batch[0]), len(batch), seconds)

    def _bucket_of(self, item: BatchItem[K]) -> int:
        return math.floor(math.log(item.tokens, self._rules.similar) + 1e-9)

    def _enqueue(self, item: BatchItem[K]) -> None:
        bucket = self._buckets.setdefault(self._bucket_of(item), _Bucket())
        bucket.queues.setdefault(item.priority, OrderedDict())[item.key] = item
        bucket.count += 1

    def _leave(self, item: BatchItem[K]) -> None:
        del self._waiting[item.key]
        self._bulk_waiting -= item.priority >= BULK
        number = self._bucket_of(item)
        bucket = self._buckets[number]
        bucket.count -= 1
        del bucket.queues[item.priority][item.key]
        if not bucket.queues[item.priority]:
            del bucket.queues[item.priority]
        if not bucket.count:
            del self._buckets[number]

    def _expire(self, now: float) -> Iterator[BatchItem[K]]:
        while self._deadlines and self._deadlines[0][0] <= now:
            item = heapq.heappop(self._deadlines)[2]
            if self._waiting.get(item.key) is item:
                self._leave(item)
                yield item
        if (
            len(self._deadlines) > 2 * len(self._waiting) + 64
        ):  # most of the deadlines are those of items that have left, so drop these deadlines
            self._deadlines = [
                entry for entry in self._deadlines if self._waiting.get(entry[2].key) is entry[2]
            ]
            heapq.heapify(self._deadlines)

    def _seed(self, now: float) -> BatchItem[K] | None:
        """The first item of the batch that starts now; ``None`` if no batch starts now."""
        timed = self._rules.mode is Mode.TIMED
        best: BatchItem[K] | None = None
        for number, bucket in self._buckets.items():
            full = not timed or self._full(number, bucket)
            for queue in bucket.queues.values():
                front = next(iter(queue.values()))
                starts = full or front.arrived + self._rules.timeout_s <= now
                if starts and (best is None or _rank(front) < _rank(best)):
                    best = front
        return best

    def _full(self, number: int, bucket: _Bucket[K]) -> bool:
        """Whether the items of this bucket fill a batch, so that one more might not fit."""
        longest = math.ceil(self._rules.similar ** (number + 1))
        return bucket.count >= self._rules.max_batch_size or (
            (bucket.count + 1) * longest > self._rules.max_batch_tokens
        )

    def _chosen(self, seed: BatchItem[K]) -> Iterator[BatchItem[K]]:
        """The items of the batch that begins with ``seed``."""
        number = self._bucket_of(seed)
        queues = self._buckets[number].queues
        limit = self._rules.max_batch_size
        if self._rules.mode is Mode.ADAPTIVE:
            limit = self._limits.next_size(number, limit)
        yield seed
        count, longest = 1, seed.tokens
        for priority in sorted(queues):
            for item in queues[priority].values():
                if item is seed:
                    continue
                longest = max(longest, item.tokens)
                if count >= limit or (count + 1) * longest > self._rules.max_batch_tokens:
                    return
                count += 1
                yield item

    def _wake_at(self) -> float | None:
        """When the next batch starts or the next item expires, if no item is added before then."""
        times = [entry[0] for entry in self._deadlines[:1]]
        if (
            self._waiting
        ):  # then the mode is `timed`: in other modes, no item waits while the executor is idle
            times.append(next(iter(self._waiting.values())).arrived + self._rules.timeout_s)
        return min(times, default=None)


def _rank(item: BatchItem[K]) -> tuple[int, float]:
    return item.priority, item.arrived
