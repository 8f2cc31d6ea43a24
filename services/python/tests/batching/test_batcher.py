"""Which items become a batch, and when."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from daybreak_server.batching.batcher import Batcher, BatchItem, FullError
from daybreak_server.batching.rules import Mode, Rules


def item(
    key: int, tokens: int = 10, *, at: float = 0.0, priority: int = 0, deadline: float = math.inf
) -> BatchItem[int]:
    return BatchItem(key=key, tokens=tokens, arrived=at, priority=priority, deadline=deadline)


def filled(rules: Rules, *items: BatchItem[int]) -> Batcher[int]:
    batcher: Batcher[int] = Batcher(rules)
    for entry in items:
        batcher.add(entry)
    return batcher


def keys(items: tuple[BatchItem[int], ...]) -> list[int]:
    return [entry.key for entry in items]


def test_an_idle_executor_starts_at_once_in_the_mode_eager() -> None:
    """A single item is a batch. The items that arrive while this batch runs become the next batch."""
    batcher = filled(Rules(), item(1))
    assert keys(batcher.next(0.0).batch) == [1]
    for key in (2, 3, 4):
        batcher.add(item(key))
    assert keys(batcher.next(0.1).batch) == [2, 3, 4]
    assert batcher.sizes == {1: 1, 3: 1}


def test_the_mode_timed_waits_for_a_full_batch_or_its_timeout() -> None:
    """The batcher returns the time at which to call it again."""
    batcher = filled(Rules(mode=Mode.TIMED, timeout_s=0.5, max_batch_size=2), item(1, at=10.0))
    waits = batcher.next(10.1)
    assert (waits.batch, waits.wake_at) == ((), 10.5)
    batcher.add(item(2, at=10.2))
    assert keys(batcher.next(10.2).batch) == [1, 2]
    batcher.add(item(3, at=10.3))
    assert keys(batcher.next(10.8).batch) == [3]


def test_a_batch_is_full_when_its_tokens_are() -> None:
    """If the tokens of the next item do not fit, a batch starts at once, even with few items and in mode `timed`."""
    rules = Rules(mode=Mode.TIMED, timeout_s=9, max_batch_size=16, max_batch_tokens=100)
    batcher = filled(rules, *(item(key, 30) for key in range(4)))
    assert keys(batcher.next(0.0).batch) == [0, 1, 2]


def test_the_padding_of_a_batch_counts() -> None:
    """A batch of two items with 30 and 20 tokens counts as 60 tokens."""
    batcher = filled(Rules(max_batch_tokens=60, similar=100), item(1, 20), item(2, 30), item(3, 5))
    assert keys(batcher.next(0.0).batch) == [1, 2]


def test_an_outlier_is_a_batch_alone() -> None:
    """An item that exceeds the limit of a batch is not lost. It is the only item of its batch."""
    batcher = filled(Rules(max_batch_tokens=100), item(1, 8000), item(2, 10), item(3, 10))
    assert [keys(batcher.next(0.0).batch) for _ in range(2)] == [[1], [2, 3]]


def test_only_items_of_similar_length_are_batched_together() -> None:
    """Items of other lengths follow in the next batch."""
    batcher = filled(Rules(similar=2), item(1, 10), item(2, 200), item(3, 12))
    assert [keys(batcher.next(0.0).batch) for _ in range(2)] == [[1, 3], [2]]


def test_a_better_priority_goes_first_and_others_fill_its_batch() -> None:
    """Items of a worse priority fill the free places of the batch."""
    rules = Rules(max_batch_size=3)
    batcher = filled(rules, *(item(key, priority=9) for key in range(4)), item(9, at=1.0))
    assert [keys(batcher.next(1.0).batch) for _ in range(2)] == [[9, 0, 1], [2, 3]]


def test_cancelled_and_expired_items_leave_before_they_cost_anything() -> None:
    """The batcher reports the expired items, so that their callers get an answer."""
    batcher = filled(Rules(), item(1), item(2, deadline=5.0), item(3))
    assert batcher.cancel(1)
    assert not batcher.cancel(1)
    decision = batcher.next(5.0)
    assert (keys(decision.expired), keys(decision.batch)) == ([2], [3])


def test_a_deadline_wakes_the_caller() -> None:
    """`wake_at` is no later than the next deadline, so an item that waits for a full batch expires in time."""
    batcher = filled(Rules(mode=Mode.TIMED, timeout_s=9), item(1, deadline=2.0))
    assert batcher.next(0.0).wake_at == 2.0
    decision = batcher.next(2.0)
    assert (keys(decision.expired), decision.wake_at) == ([1], None)


def test_no_more_items_wait_than_the_limit_allows() -> None:
    """`add` refuses a further item with an error, for which the caller answers 429."""
    batcher = filled(Rules(max_waiting=1), item(1))
    with pytest.raises(FullError):
        batcher.add(item(2))
    batcher.cancel(1)
    batcher.add(item(2))


def test_a_key_waits_once_and_has_a_length() -> None:
    """A second item with the same key would get the answer of the first."""
    batcher = filled(Rules(), item(1))
    with pytest.raises(ValueError, match="waits already"):
        batcher.add(item(1))
    with pytest.raises(ValueError, match="at least 1"):
        batcher.add(item(2, 0))


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_batch_size", 0), ("max_batch_tokens", 0), ("max_waiting", 0), ("timeout_s", -1), ("similar", 1)],
)
def test_an_invalid_rule_is_refused_by_name(name: str, value: float) -> None:
    """The message names the rule, for the person who has set it."""
    with pytest.raises(ValueError, match=name):
        Rules(**{name: value})


@pytest.mark.parametrize("similar", [1.5, 2.0, 10.0])
def test_lengths_that_share_a_bucket_differ_at_most_by_the_factor(similar: float) -> None:
    """A length that is a power of the factor gets the right bucket too, although its logarithm may be rounded."""
    batcher: Batcher[int] = Batcher(Rules(similar=similar))
    buckets: dict[int, list[int]] = {}
    for tokens in range(1, 3000):
        buckets.setdefault(batcher._bucket_of(item(0, tokens)), []).append(tokens)
    for lengths in buckets.values():
        assert max(lengths) <= similar * min(lengths)
    assert list(itertools.chain(*(buckets[number] for number in sorted(buckets)))) == list(range(1, 3000))


def test_a_change_of_a_rule_holds_from_the_next_batch_on() -> None:
    """No waiting item is lost, even if the buckets change."""
    batcher = filled(Rules(max_batch_size=1), item(1, 10), item(2, 200), item(3, 10))
    assert keys(batcher.next(0.0).batch) == [1]
    batcher.rules = Rules(max_batch_size=8, similar=1000)
    assert keys(batcher.next(0.0).batch) == [2, 3]


def test_the_deadlines_of_items_that_left_are_forgotten() -> None:
    """Memory does not grow with the number of requests."""
    batcher: Batcher[int] = Batcher(Rules())
    for key in range(2000):
        batcher.add(item(key, deadline=1e9))
        batcher.next(0.0)
    assert len(batcher._deadlines) < 200


class Machine(RuleBasedStateMachine):
    """In any sequence of calls, no item is lost, doubled or reordered, and an idle executor does not wait too long."""

    def __init__(self) -> None:
        super().__init__()
        self.batcher: Batcher[int] = Batcher(Rules())
        self.now = 0.0
        self.waiting: dict[int, BatchItem[int]] = {}
        self.keys = itertools.count()
        self.sizes: Counter[int] = Counter()

    @rule(
        tokens=st.integers(1, 600),
        priority=st.integers(0, 2),
        allowed=st.one_of(st.just(math.inf), st.floats(0.01, 3)),
    )
    def add(self, tokens: int, priority: int, allowed: float) -> None:
        new = item(next(self.keys), tokens, at=self.now, priority=priority, deadline=self.now + allowed)
        if len(self.waiting) < self.batcher.rules.max_waiting:
            self.batcher.add(new)
            self.waiting[new.key] = new
        else:
            with pytest.raises(FullError):
                self.batcher.add(new)

    @rule(seconds=st.floats(0, 2))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(self.waiting)))
        assert self.batcher.cancel(key)
        del self.waiting[key]

    @rule(
        mode=st.sampled_from(Mode),
        size=st.integers(1, 6),
        tokens=st.integers(1, 1000),
        timeout=st.floats(0, 1),
        similar=st.sampled_from([1.5, 2.0, 1000.0]),
    )
    def change(self, mode: Mode, size: int, tokens: int, timeout: float, similar: float) -> None:
        self.batcher.rules = Rules(
            mode=mode,
            max_batch_size=size,
            max_batch_tokens=tokens,
            timeout_s=timeout,
            similar=similar,
            max_waiting=12,
        )

    @rule()
    def next(self) -> None:
        rules = self.batcher.rules
        decision = self.batcher.next(self.now)
        due = {key for key, entry in self.waiting.items() if entry.deadline <= self.now}
        assert {entry.key for entry in decision.expired} == due
        for key in due:
            del self.waiting[key]
        overdue = [entry for entry in self.waiting.values() if entry.arrived + rules.timeout_s <= self.now]
        if (self.waiting and rules.mode is not Mode.TIMED) or overdue:
            assert decision.batch
        for entry in decision.batch:
            assert self.waiting.pop(entry.key) is entry
        if decision.batch:
            self.check(decision.batch, rules)
        elif self.waiting:
            assert decision.wake_at is not None
            assert decision.wake_at <= min(entry.arrived for entry in self.waiting.values()) + rules.timeout_s

    def check(self, batch: tuple[BatchItem[int], ...], rules: Rules) -> None:
        self.sizes[len(batch)] += 1
        longest, shortest = (choose(entry.tokens for entry in batch) for choose in (max, min))
        assert len(batch) <= rules.max_batch_size
        assert len(batch) == 1 or len(batch) * longest <= rules.max_batch_tokens
        assert longest <= rules.similar * shortest
        for priority, of_priority in itertools.groupby(batch[1:], key=lambda entry: entry.priority):
            chosen = list(of_priority)
            assert keys(tuple(chosen)) == sorted(keys(tuple(chosen)))
            assert all(priority <= entry.priority for entry in batch[batch.index(chosen[-1]) :])
        if rules.mode is not Mode.TIMED:
            first = (batch[0].priority, batch[0].arrived)
            assert all(first <= (entry.priority, entry.arrived) for entry in self.waiting.values())

    @invariant()
    def holds_what_waits(self) -> None:
        assert len(self.batcher) == len(self.waiting)
        assert all(key in self.batcher for key in self.waiting)
        assert self.batcher.sizes == self.sizes


TestAnySequenceOfCalls = Machine.TestCase


@given(
    st.lists(st.tuples(st.floats(0, 0.3), st.integers(1, 300)), min_size=1, max_size=30), st.floats(0, 0.5)
)
def test_no_item_waits_longer_than_its_timeout_for_an_idle_executor(
    arrivals: list[tuple[float, int]], timeout_s: float
) -> None:
    """If the caller asks for a batch after each arrival and at `wake_at`, every item starts in time."""
    batcher: Batcher[int] = Batcher(Rules(mode=Mode.TIMED, timeout_s=timeout_s, max_batch_size=4))
    started: dict[int, float] = {}
    now, wake_at = 0.0, None
    entries = []
    for key, (gap, tokens) in enumerate(arrivals):
        now += gap
        entries.append(item(key, tokens, at=now))

    def ask(at: float) -> float | None:
        while True:  # batches take no time here, so the executor is idle again at once
            decision = batcher.next(at)
            if not decision.batch:
                return decision.wake_at
            started.update((entry.key, at) for entry in decision.batch)

    for entry in entries:
        while wake_at is not None and wake_at <= entry.arrived:
            wake_at = ask(wake_at)
        batcher.add(entry)
        wake_at = ask(entry.arrived)
    while wake_at is not None:
        wake_at = ask(wake_at)
    assert all(started[entry.key] <= entry.arrived + timeout_s for entry in entries)
