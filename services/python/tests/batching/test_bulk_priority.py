"""Bulk work fills the places that requests leave empty in a batch. A request waits for at most one bulk batch."""

from __future__ import annotations

import random
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daybreak_server.batching.batcher import BULK, INTERACTIVE, Batcher, BatchItem, FullError
from daybreak_server.batching.executor import BatchExecutor
from daybreak_server.batching.rules import Mode, Rules
from testkit.waiting import wait_until


def item(key: int, *, tokens: int = 10, at: float = 0.0, bulk: bool = False) -> BatchItem[int]:
    return BatchItem(key=key, tokens=tokens, arrived=at, priority=BULK if bulk else INTERACTIVE)


def test_bulk_items_do_not_count_against_the_limit_of_waiting_items() -> None:
    """If they counted, a task would make its group refuse requests."""
    batcher: Batcher[int] = Batcher(Rules(max_waiting=2))
    for key in range(100):
        batcher.add(item(key, bulk=True))
    batcher.add(item(100))
    batcher.add(item(101))
    with pytest.raises(FullError, match="2 of at most 2"):
        batcher.add(item(102))
    assert (len(batcher), batcher.counted) == (102, 2)
    batcher.cancel(100)
    batcher.cancel(0)
    assert (len(batcher), batcher.counted) == (100, 1)


def test_bulk_items_fill_the_places_that_a_request_leaves() -> None:
    """A request that arrives after the bulk items is still the first item of the next batch."""
    batcher: Batcher[int] = Batcher(Rules(max_batch_size=4))
    for key in range(6):
        batcher.add(item(key, bulk=True))
    batcher.add(item(100, at=5.0))
    assert [each.key for each in batcher.next(5.0).batch] == [100, 0, 1, 2]
    assert [each.key for each in batcher.next(5.0).batch] == [3, 4, 5]


ARRIVALS = st.lists(st.tuples(st.booleans(), st.integers(1, 300), st.integers(0, 3)), min_size=1, max_size=60)


@given(arrivals=ARRIVALS, mode=st.sampled_from([Mode.EAGER, Mode.ADAPTIVE]), size=st.integers(1, 8))
def test_no_batch_without_a_waiting_request_starts_before_it(
    arrivals: Sequence[tuple[bool, int, int]], mode: Mode, size: int
) -> None:
    """While any request waits, each new batch contains a request, whatever the lengths of the items are.

    So a request waits for at most one batch that has only bulk work: the batch that runs when the request arrives.
    No item is lost, and none is in two batches.
    """
    batcher: Batcher[int] = Batcher(Rules(mode=mode, max_batch_size=size, max_batch_tokens=400))
    now, seen = 0.0, []

    def run_one() -> None:
        waits = batcher.counted > 0
        batch = batcher.next(now).batch
        seen.extend(each.key for each in batch)
        if waits:
            assert any(each.priority == INTERACTIVE for each in batch)
        if batch:
            batcher.complete(batch, 0.001 * len(batch))

    for key, (bulk, tokens, batches) in enumerate(arrivals):
        batcher.add(item(key, tokens=tokens, at=now, bulk=bulk))
        for _ in range(batches):
            run_one()
            now += 1.0
    while len(batcher):
        run_one()
    assert sorted(seen) == list(range(len(arrivals)))


def test_a_request_waits_for_one_batch_of_bulk_work_only() -> None:
    """The request is the first item of the next batch, although hundreds of items came before it."""
    batches: list[list[int]] = []
    running, go = threading.Semaphore(0), threading.Semaphore(0)

    def run(numbers: Sequence[int]) -> Sequence[int]:
        batches.append(list(numbers))
        running.release()
        assert go.acquire(timeout=30)
        return numbers

    executor: BatchExecutor[int, int] = BatchExecutor(run, Rules(max_batch_size=8, max_waiting=4))
    try:
        with ThreadPoolExecutor(2) as callers:
            bulk = callers.submit(executor.compute, range(400), [5] * 400, priority=BULK)
            assert running.acquire(timeout=30)
            request = callers.submit(executor.compute, [1000], [random.Random(0).randrange(4, 8)])
            wait_until(lambda: executor.counted == 1, 30, "the request waits")
            go.release(2)
            assert request.result(30) == [1000]
            assert batches[1][0] == 1000
            assert len(batches[1]) == 8  # the rest of the batch is bulk work
            go.release(100)
            assert bulk.result(30) == list(range(400))
    finally:
        go.release(100)
        executor.close()
