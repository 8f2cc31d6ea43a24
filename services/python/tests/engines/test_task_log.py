"""For each change of a task's state, the process that made the change writes one line to the log."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from daybreak_server import wiring
from daybreak_server.domain import log_context
from daybreak_server.domain.ids import TaskId, new_group_id, new_task_id
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.task_changes import ChangeKind
from daybreak_server.domain.tasks import Failed, Finished, NewTask, State
from daybreak_server.domain.tracing import TraceContext
from daybreak_server.engines.ranks.rank_lifecycle import Rank
from daybreak_server.observability.task_log import TASKS, log_task, write_lines_with
from testkit.pools import Pool
from testkit.waiting import wait_until

TRACE = TraceContext(traceparent="00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")


class Lines(logging.Handler):
    """The lines about changes, each with the fields that were bound when it was logged."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[dict[str, Any]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.found.append({**log_context.current(), **record.__dict__, "thread": threading.get_ident()})

    def of(self, task: TaskId) -> list[str]:
        """For each line about the task, the change and the number of the attempt."""
        return [f"{line['change']} {line.get('attempt', 0)}" for line in self.found if line["task"] == task]

    def wait_for(self, task: TaskId, *expected: str) -> None:
        """Wait until the task has exactly these lines. A line is written only after its change has been made."""
        wait_until(lambda: len(self.of(task)) >= len(expected), 60, f"the lines of {task}")
        assert self.of(task) == list(expected)

    def last(self, task: TaskId, change: str) -> dict[str, Any]:
        return [line for line in self.found if (line["task"], line["change"]) == (task, change)][-1]


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler, logger = Lines(), logging.getLogger(TASKS)
    logger.addHandler(handler)
    logger.setLevel("INFO")
    yield handler
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def claimed(pool: Pool, **options: Any) -> Any:
    """A queue, a group that the test controls, and the group's claim of the next task."""
    queue = wiring.build_queue(pool.settings, pool.name)
    record = GroupRecord(id=new_group_id(), state=GroupState.IDLE)
    queue.register(record, ttl_s=options.pop("ttl_s", 60))
    claim = queue.claim(record, wait_s=10)
    assert claim is not None
    return queue, record, claim


def test_a_task_that_is_retried_and_succeeds_has_a_line_for_each_attempt(
    pools: Callable[..., Pool], leader: Callable[..., Rank], lines: Lines
) -> None:
    """Each line of the leader has the pool, the group, the rank, and the id of the trace of the submit request."""
    pool = pools()
    task = TaskId(new_task_id(pool.name))
    new = NewTask(
        id=task,
        pool=pool.name,
        tenant="acme",
        input_json='{"message": "hi", "steps": 3, "fail_at": 2, "fail_kind": "error", "fail_attempts": 1}',
        trace_context=TRACE,
    )
    pool.call(pool.store.submit([new]))
    rank = leader(pool)
    pool.wait(task)
    wait_until(lambda: len(lines.of(task)) == 5, 60, "the last line")
    of_the_tick = lines.last(task, "queued")  # the tick runs on another thread, so its line may come late
    assert (of_the_tick["attempt"], of_the_tick["trace_id"]) == (1, TRACE.trace_id)
    of_the_leader = [line for line in lines.found if line is not of_the_tick]
    lines.found = of_the_leader
    lines.wait_for(task, "started 1", "retrying 1", "started 2", "succeeded 2")
    assert rank.record is not None
    for line in of_the_leader:
        assert (line["pool"], line["group"], line["rank"]) == (pool.name, rank.record.id, 0)
        assert line["trace_id"] == TRACE.trace_id
    retry = lines.last(task, "retrying")
    assert (retry["strikes"], retry["reason"], retry["tenant"], retry["levelname"]) == (
        1,
        "error",
        "acme",
        "WARNING",
    )
    assert retry["error"]


def test_a_cancel_has_a_line_when_it_is_requested_and_when_the_task_stops(
    pools: Callable[..., Pool], leader: Callable[..., Rank], lines: Lines
) -> None:
    """A waiting task is cancelled at once. A second cancel changes nothing, so it has no line."""
    pool = pools()
    waiting = pool.submit(message="waits")
    pool.cancel(waiting)
    pool.cancel(waiting)
    leader(pool)
    running = pool.submit(message="runs", steps=10_000, step_s=0.01)
    pool.wait_step(running)
    pool.cancel(running)
    pool.cancel(running)
    pool.wait(running, State.CANCELLED)
    lines.wait_for(waiting, "cancelled 0")
    lines.wait_for(running, "started 1", "cancelling 1", "cancelled 1")


def test_a_task_that_fails_for_good_has_its_error(
    pools: Callable[..., Pool], leader: Callable[..., Rank], lines: Lines
) -> None:
    pool = pools()
    leader(pool)
    task = pool.submit(message="hi", steps=3, fail_at=2, fail_kind="permanent")
    pool.wait(task, State.FAILED)
    lines.wait_for(task, "started 1", "failed 1")
    assert lines.last(task, "failed")["reason"] == pool.get(task).error_code
    assert lines.last(task, "failed")["error"] == pool.get(task).error_message


def test_a_released_task_has_a_line_of_the_group_that_released_it(
    pools: Callable[..., Pool], leader: Callable[..., Rank], lines: Lines
) -> None:
    pool = pools()
    rank = leader(pool)
    task = pool.submit(message="hi", steps=10_000, step_s=0.01)
    pool.wait_step(task)
    assert rank.stop(timeout_s=60)
    lines.wait_for(task, "started 1", "released 1")
    assert lines.last(task, "released")["error"] == "drain"


def test_a_lost_lease_has_a_line_of_the_tick_that_found_it(pools: Callable[..., Pool], lines: Lines) -> None:
    """Several gateways tick. Only the one whose tick ended the attempt logs the end."""
    pool = pools(lease={"lease_s": 1.0})
    task = pool.submit(message="hi")
    queue, record, _ = claimed(pool)
    wait_until(lambda: pool.get(task).strikes == 1, 30, "the end of the lease")
    for _ in range(5):
        pool.call(pool.store.tick(pool.name))
    lines.wait_for(task, "retrying 1")
    assert lines.last(task, "retrying")["reason"] == "lease_lost"
    assert lines.last(task, "retrying")["group"] == record.id
    queue.close()


def test_a_delayed_task_has_a_line_when_it_is_due_and_one_when_it_is_deleted(
    pools: Callable[..., Pool], lines: Lines
) -> None:
    """Several gateways tick and delete. Only the gateway whose call made the change logs it."""
    pool = pools()
    task = TaskId(new_task_id(pool.name))
    at_ms = time.time_ns() // 1_000_000 + 2_000  # later than the submit, however busy the machine is
    new = NewTask(
        id=task, pool=pool.name, tenant="t", input_json="{}", start_at_ms=at_ms, trace_context=TRACE
    )
    pool.call(pool.store.submit([new]))

    def queued() -> bool:
        pool.call(pool.store.tick(pool.name))
        return pool.get(task).state is State.QUEUED

    wait_until(queued, 30, "the start time")
    pool.call(pool.store.cancel(task))
    assert pool.call(pool.store.delete([task])) == 1
    assert pool.call(pool.store.delete([task])) == 0
    lines.wait_for(task, "queued 0", "cancelled 0", "deleted 0")
    assert lines.last(task, "queued")["tenant"] == "t"
    assert lines.last(task, "deleted")["trace_id"] == TRACE.trace_id


def test_a_task_that_expires_in_the_queue_has_a_line(pools: Callable[..., Pool], lines: Lines) -> None:
    pool = pools()
    task = TaskId(new_task_id(pool.name))
    new = NewTask(id=task, pool=pool.name, tenant="t", input_json="{}", start_within_ms=1)
    pool.call(pool.store.submit([new]))
    pool.wait(task, State.EXPIRED)
    lines.wait_for(task, "expired 0")


def test_a_group_that_restarts_has_a_line_for_the_task_that_it_lost(
    pools: Callable[..., Pool], lines: Lines
) -> None:
    """There is also a line for the task of a group that deregisters."""
    pool = pools()
    first, second = pool.submit(message="first"), pool.submit(message="second")
    queue, record, _ = claimed(pool)
    queue.register(GroupRecord(id=record.id, state=GroupState.STARTING), ttl_s=60)
    lines.wait_for(first, "released 1")
    pool.cancel(first)
    other, other_record, _ = claimed(pool)
    other.deregister(other_record)
    lines.wait_for(second, "released 1")
    queue.close()
    other.close()


def test_an_attempt_that_two_processes_settle_has_one_line(pools: Callable[..., Pool], lines: Lines) -> None:
    """A leader and its watchdog may both settle an attempt."""
    pool = pools()
    task = pool.submit(message="hi")
    queue, _, claim = claimed(pool)
    watchdog = wiring.build_queue(pool.settings, pool.name)
    failed = Failed(code="boom", message="it broke", permanent=True)
    assert not queue.settle(claim.lease, failed).repeated
    repeated = watchdog.settle(claim.lease, Finished(artifacts=()))
    assert repeated.repeated
    assert repeated.state is State.FAILED
    lines.wait_for(task, "failed 1")
    queue.close()
    watchdog.close()


def test_a_line_that_cannot_be_written_is_no_error_of_the_work(
    lines: Lines, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller has already changed a task, and continues. The log says once why the line could not be written."""

    class CannotWriteError(Exception):
        """An error of a class that no other test has logged."""

    def write(is_warning: bool, line: dict[str, object]) -> None:
        raise CannotWriteError

    write_lines_with(write)
    try:
        for _ in range(2):
            log_task(ChangeKind.STARTED, new_task_id("echo"))
    finally:
        write_lines_with(None)
    assert not lines.found
    assert [line.exc_info[0] for line in caplog.records if line.exc_info] == [CannotWriteError]
