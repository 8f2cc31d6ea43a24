"""Tests of the executor, which computes the items of many callers in batches on one thread."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from daybreak_server.batching.batcher import FullError
from daybreak_server.batching.executor import (
    BatchExecutor,
    BatchReport,
    CancelledError,
    ClosedError,
    ExpiredError,
)
from daybreak_server.batching.rules import Mode, Rules


class Doubler:
    """Doubles numbers. A batch waits until ``go`` is set. A number below zero raises an error."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.running = threading.Semaphore(0)
        self.go = threading.Event()
        self.go.set()

    def __call__(self, numbers: Sequence[int]) -> list[int]:
        self.batches.append(list(numbers))
        self.running.release()
        assert self.go.wait(30)
        if min(numbers) < 0:
            raise ValueError(f"{min(numbers)} is negative")
        return [2 * number for number in numbers]


Start = Callable[..., tuple[BatchExecutor[int, int], Doubler]]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[BatchExecutor[int, int]] = []

    def begin(**rules: object) -> tuple[BatchExecutor[int, int], Doubler]:
        run = Doubler()
        executor = BatchExecutor(run, Rules(**rules))  # type: ignore[arg-type]
        started.append(executor)
        return executor, run

    yield begin
    for executor in started:
        executor.close()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_every_caller_gets_its_own_results_in_order(start: Start) -> None:
    """A caller gets only its own results, although batches mix the items of 32 callers."""
    executor, _ = start(max_batch_size=7)
    chance = random.Random(0)
    inputs = [[chance.randrange(10**6) for _ in range(chance.randrange(1, 9))] for _ in range(200)]
    with ThreadPoolExecutor(32) as callers:
        results = list(callers.map(lambda numbers: executor.compute(numbers, [5] * len(numbers)), inputs))
    assert results == [[2 * number for number in numbers] for numbers in inputs]
    assert sum(size * count for size, count in executor.sizes().items()) == sum(map(len, inputs))


def test_what_arrives_while_a_batch_runs_becomes_the_next_batch(start: Start) -> None:
    """Batches form although the executor never delays an item to fill a batch."""
    executor, run = start()
    run.go.clear()
    with ThreadPoolExecutor(8) as callers:
        first = callers.submit(executor.compute, [1], [5])
        assert run.running.acquire(timeout=30)
        others = [callers.submit(executor.compute, [number], [5]) for number in range(2, 8)]
        until(lambda: executor.waiting == 6)
        run.go.set()
        assert first.result() == [2]
        assert [other.result() for other in others] == [[2 * number] for number in range(2, 8)]
    assert executor.sizes() == {1: 1, 6: 1}


def test_an_item_that_raises_fails_only_its_own_caller(start: Start) -> None:
    """Each half of the batch is computed again, and so on, until the item that raises is alone in a batch."""
    executor, run = start()
    run.go.clear()
    with ThreadPoolExecutor(8) as callers:
        callers.submit(executor.compute, [0], [5])
        assert run.running.acquire(timeout=30)
        calls = [callers.submit(executor.compute, [number], [5]) for number in (1, -7, 2, 3)]
        until(lambda: executor.waiting == 4)
        run.go.set()
        assert [calls[at].result() for at in (0, 2, 3)] == [[2], [4], [6]]
        with pytest.raises(ValueError, match="-7 is negative"):
            calls[1].result()
        assert callers.submit(executor.compute, [9], [5]).result() == [18]


def test_a_caller_that_leaves_takes_its_items_with_it(start: Start) -> None:
    """The executor does not compute the items of a caller that has left."""
    executor, run = start()
    run.go.clear()
    gone = threading.Event()
    with ThreadPoolExecutor(4) as callers:
        callers.submit(executor.compute, [1], [5])
        assert run.running.acquire(timeout=30)
        leaving = callers.submit(executor.compute, [2, 3], [5, 5], cancelled=gone.is_set)
        until(lambda: executor.waiting == 2)
        gone.set()
        with pytest.raises(CancelledError):
            leaving.result()
        assert executor.waiting == 0
        run.go.set()
        assert callers.submit(executor.compute, [4], [5]).result() == [8]
    assert run.batches == [[1], [4]]


def test_a_deadline_ends_the_wait(start: Start) -> None:
    """The wait ends even if the executor would wait longer for a full batch."""
    executor, run = start(mode=Mode.TIMED, timeout_s=60)
    with pytest.raises(ExpiredError):
        executor.compute([1], [5], deadline=time.monotonic() + 0.05)
    assert run.batches == []


def test_a_call_is_accepted_as_a_whole_or_not_at_all(start: Start) -> None:
    """If only a part of a call were accepted, this part would be computed in vain."""
    executor, run = start(mode=Mode.TIMED, timeout_s=60, max_waiting=4)
    with ThreadPoolExecutor(4) as callers:
        waiting = callers.submit(executor.compute, [1, 2, 3], [5, 5, 5])
        until(lambda: executor.waiting == 3)
        with pytest.raises(FullError):
            executor.compute([4, 5], [5, 5])
        assert executor.waiting == 3
        executor.rules = Rules()  # in the mode eager, waiting items run at once
        assert waiting.result() == [2, 4, 6]
    assert run.batches == [[1, 2, 3]]


def test_a_closed_executor_answers_all_callers(start: Start) -> None:
    """Every caller gets an error, so no caller waits forever."""
    executor, _ = start(mode=Mode.TIMED, timeout_s=60)
    with ThreadPoolExecutor(2) as callers:
        waiting = callers.submit(executor.compute, [1], [5])
        until(lambda: executor.waiting == 1)
        executor.close()
        with pytest.raises(ClosedError):
            waiting.result()
    with pytest.raises(ClosedError):
        executor.compute([1], [5])


def test_too_few_results_are_an_error(start: Start) -> None:
    """If the executor accepted too few results, callers could get each other's results."""
    executor: BatchExecutor[int, int] = BatchExecutor(lambda numbers: [], Rules())
    with pytest.raises(RuntimeError, match="0 results for a batch of 1"):
        executor.compute([1], [5])
    executor.close()


def test_a_call_whose_items_all_raise_gets_one_error_and_the_executor_continues(start: Start) -> None:
    """After the first error, the other items of the call are dropped.

    No empty batch may run, because a model may refuse an empty batch.
    """
    executor, run = start(max_batch_size=8)
    with ThreadPoolExecutor(1) as callers:
        with pytest.raises(ValueError, match="is negative"):
            callers.submit(executor.compute, [-1, -2, -3, -4], [5] * 4).result(30)
        assert callers.submit(executor.compute, [4], [5]).result(30) == [8]
    assert all(run.batches)


def test_a_report_says_how_long_the_first_item_waited_and_whether_the_batch_failed() -> None:
    run, reports = Doubler(), list[BatchReport]()
    executor = BatchExecutor(run, Rules(), observe=reports.append)
    run.go.clear()
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(executor.compute, [1], [1])
        assert run.running.acquire(timeout=30)
        began = time.monotonic()
        bulk = threads.submit(executor.compute, [2], [8], priority=1)
        until(lambda: executor.waiting == 1)
        second = threads.submit(executor.compute, [3, -3], [1, 1])
        until(lambda: executor.waiting == 3)
        waited_s = time.monotonic() - began
        run.go.set()
        assert (first.result(30), bulk.result(30)) == ([2], [4])
        with pytest.raises(ValueError, match="negative"):
            second.result(30)
    until(lambda: len(reports) == 3)
    executor.close()
    by_size = {(report.size, report.waited_s is None): report for report in reports}
    assert by_size.keys() == {(1, False), (2, False), (1, True)}, "the bulk item shared a batch"
    assert [report.failed for report in reports] == [False, True, False]
    assert by_size[1, False].seconds >= waited_s, "the first report is too short"
    assert 0 < (by_size[2, False].waited_s or 0) <= by_size[1, False].seconds + 30
