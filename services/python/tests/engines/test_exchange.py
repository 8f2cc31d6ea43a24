"""An exchange passes data from a work thread to the sending loop.

It loses nothing, its buffer is bounded, and either side can stop the request.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from daybreak_server.domain.serving_headers import Refusal
from daybreak_server.engines.ranks.consensus import RankReport, Status
from daybreak_server.engines.serving.admission import Admission
from daybreak_server.engines.serving.answer_parts import AnswerPart
from daybreak_server.engines.serving.exchange import BUFFER_BYTES, Exchange, Stop
from daybreak_server.engines.serving.worker_threads import WorkerThreads
from daybreak_server.workloads.serving import Request
from testkit.waiting import wait_until

FAILED = RankReport(point=1, status=Status.FAILED, code="odd", message="why")


def exchange(
    on_left: Callable[[Exchange], None] = lambda _: None, *, deadline: float | None = None
) -> Exchange:
    request = Request(method="GET", path="/", deadline=deadline)
    return Exchange(request, loop=asyncio.get_running_loop(), on_left=on_left)


async def receive_all(opened: Exchange) -> bytes:
    data = b""
    while not opened.complete:
        data += b"".join(part.data for part in await opened.receive())
    return data


async def test_parts_arrive_in_order_and_whole() -> None:
    opened = exchange()

    def work() -> None:
        for number in range(5000):
            assert opened.send(AnswerPart(b"%d\n" % number))
        opened.finish()

    thread = threading.Thread(target=work)
    thread.start()
    assert await receive_all(opened) == b"".join(b"%d\n" % number for number in range(5000))
    thread.join()


async def test_a_thread_waits_until_the_loop_has_taken_the_items() -> None:
    opened, sent = exchange(), []

    def work() -> None:
        for number in range(6):
            opened.send(AnswerPart(b"x" * BUFFER_BYTES))
            sent.append(number)
        opened.finish()

    thread = threading.Thread(target=work)
    thread.start()
    await asyncio.to_thread(wait_until, lambda: sent == [0], 60, "the first part")
    await asyncio.to_thread(thread.join, 0.3)
    assert sent == [0]
    assert len(await receive_all(opened)) == 6 * BUFFER_BYTES
    await asyncio.to_thread(thread.join)


@pytest.mark.parametrize("reason", list(Stop))
async def test_a_stop_wakes_a_thread_that_waits(reason: Stop) -> None:
    opened, results = exchange(), []

    def work() -> None:
        results.append(opened.send(AnswerPart(b"x" * BUFFER_BYTES)))
        results.append(opened.send(AnswerPart(b"more")))
        results.append(opened.request.cancelled())
        opened.abandon()

    thread = threading.Thread(target=work)
    thread.start()
    await asyncio.to_thread(wait_until, lambda: results == [True], 60, "a thread that waits")
    opened.stop(reason)
    opened.stop(Stop.GONE)  # the first reason counts
    await asyncio.to_thread(thread.join, 10)
    assert results == [True, False, True]
    assert opened.stopped is reason
    assert len(await opened.receive()) == 1
    assert not opened.complete, "a part of an answer is not the whole"


async def test_a_stop_wakes_the_loop() -> None:
    opened = exchange()
    waiting = asyncio.create_task(opened.receive())
    await asyncio.sleep(0)
    opened.stop(Stop.GONE)
    assert await asyncio.wait_for(waiting, 60) == ()


async def test_a_passed_deadline_stops_a_request() -> None:
    opened = exchange(deadline=0.0)
    assert not opened.begin()
    assert opened.stopped is Stop.DEADLINE
    assert opened.request.cancelled()


async def test_an_exchange_counts_until_both_sides_have_left() -> None:
    """A workload that continues after its client has gone still occupies the group."""
    left: list[Exchange] = []
    opened = exchange(left.append)
    opened.leave_loop()
    await asyncio.sleep(0)
    assert not left
    await asyncio.to_thread(opened.fail, FAILED)
    await asyncio.sleep(0)
    assert left == [opened]
    assert opened.failed == FAILED


async def test_silence_counts_from_the_last_sign_of_progress_of_work_that_runs() -> None:
    opened = exchange()
    assert opened.silent_s(1e12) == 0
    opened.begin()
    assert opened.silent_s(1e12) > 1e11
    opened.finish()
    assert opened.silent_s(1e12) == 0


def test_admission_refuses_beyond_the_capacity_and_while_draining() -> None:
    admission = Admission(2)
    assert [admission.admit() for _ in range(3)] == [None, None, Refusal.BUSY]
    assert admission.load(waiting=5).waiting == 2
    admission.release()
    assert admission.load(waiting=0).in_flight == 1
    admission.draining = True
    assert admission.admit() is Refusal.DRAINING
    admission.release()
    assert admission.admit() is Refusal.DRAINING, "an empty group that drains is about to end"
    admission.draining = False
    assert admission.admit() is None


def test_short_requests_between_two_reports_make_a_group_busy() -> None:
    admission = Admission(1)
    assert not admission.was_busy()
    admission.admit()
    admission.release()
    assert admission.was_busy()
    assert not admission.was_busy()


def test_worker_threads_run_everything_at_most_so_many_at_once() -> None:
    running, most, done, lock = [0], [0], [], threading.Lock()

    def work(item: int) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        done.append(item)
        with lock:
            running[0] -= 1

    threads = WorkerThreads(work, threads_max=3)
    for number in range(1000):
        threads.submit(number)
    wait_until(lambda: len(done) == 1000, 30, "all items")
    assert sorted(done) == list(range(1000))
    assert most[0] <= 3
    threads.close()


def test_each_of_as_many_items_as_threads_runs_at_once() -> None:
    """Four threads run four items at once, even after the threads have been idle."""
    barrier, passed = threading.Barrier(4), []

    def work(item: int) -> None:
        barrier.wait(20)
        passed.append(item)

    threads = WorkerThreads(work, threads_max=4)
    for count in (4, 8, 12):
        for number in range(4):
            threads.submit(number)
        wait_until(lambda count=count: len(passed) == count, 30, "four items at once")
    threads.close()
