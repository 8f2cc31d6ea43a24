"""Every row of the state table for tasks that wait, on a real server."""

from __future__ import annotations

import pytest

from daybreak_server.domain.tasks import (
    Control,
    Priority,
    State,
)
from daybreak_server.ports.store_errors import IdempotencyMismatchError, QueueFullError
from daybreak_server.ports.tasks import Submitted
from testkit.store_cases import DONE, new, start, submit
from testkit.store_driver import Driver


def test_a_submitted_task_is_queued_with_a_record_and_an_event(driver: Driver) -> None:
    """A submitted task is live, is first in the queue, and has one event. The submit returns the task's record."""
    task = submit(driver, metadata={"order": "42"}, priority=Priority.HIGH, input_json='{"a": 1}')
    record = driver.get(task)
    answer = driver.submit(new(metadata={"a": "b"}, start_at_ms=driver.now + 500, retention_s=9.5))
    assert isinstance(answer, Submitted)
    assert answer.record == driver.get(answer.record.id)
    driver.cancel(answer.record.id)
    assert (record.state, record.position, record.priority) == (State.QUEUED, 1, Priority.HIGH)
    assert (record.metadata, record.input_json) == ({"order": "42"}, '{"a": 1}')
    assert driver.types(task) == ["queued"]
    assert set(driver.zset("live")) == {task}
    assert driver.view().queued == 1


def test_a_task_with_a_later_start_is_delayed_and_then_promoted(driver: Driver) -> None:
    """When its start is due, the task takes its original place and a wake-up is pushed."""
    task = submit(driver, start_at_ms=driver.now + 5000)
    later = submit(driver)
    assert driver.get(task).state is State.DELAYED
    assert set(driver.zset("live")) == {later}
    driver.client.delete(driver.keys.single("wakeup"))
    assert driver.tick().promoted == 0
    driver.now += 5000
    assert driver.tick().promoted == 1
    assert driver.get(task).state is State.QUEUED
    assert driver.client.llen(driver.keys.single("wakeup")) >= 1
    claim = driver.claim()
    assert claim is not None
    assert claim.lease.task == task


def test_an_idempotency_key_with_the_same_body_finds_its_task(driver: Driver) -> None:
    """The same key with another body is refused. Another tenant may use the same key for another task."""
    first = driver.submit(new(idempotency_key="k", body_hash="a" * 64))
    again = driver.submit(new(idempotency_key="k", body_hash="a" * 64))
    other_body = driver.submit(new(idempotency_key="k", body_hash="b" * 64))
    other_tenant = driver.submit(new(idempotency_key="k", body_hash="b" * 64, tenant="u"))
    assert isinstance(first, Submitted)
    assert isinstance(again, Submitted)
    assert (again.record.id, again.repeated, first.repeated) == (first.record.id, True, False)
    assert isinstance(other_body, IdempotencyMismatchError)
    assert isinstance(other_tenant, Submitted)
    assert other_tenant.record.id != first.record.id


def test_a_submit_sent_twice_creates_one_task(driver: Driver) -> None:
    """If the store's reply to a submit is lost, the gateway repeats the submit with the same task id."""
    task = new()
    answers = [driver.submit(task), driver.submit(task)]
    assert all(isinstance(answer, Submitted) and not answer.repeated for answer in answers)
    assert driver.view().queued == 1


def test_a_full_queue_refuses_submits(driver: Driver) -> None:
    """The limit counts waiting tasks, delayed ones included, but not running ones."""
    assert isinstance(driver.submit(new(), max_queued=1), Submitted)
    assert isinstance(driver.submit(new(), max_queued=1), QueueFullError)
    driver.claim()
    assert isinstance(driver.submit(new(start_at_ms=driver.now + 9000), max_queued=1), Submitted)
    assert isinstance(driver.submit(new(), max_queued=1), QueueFullError)


@pytest.mark.parametrize("start_in_ms", [0, 9000])
def test_a_waiting_task_is_cancelled_at_once(driver: Driver, start_in_ms: int) -> None:
    """Queued or delayed + cancel → cancelled: the task leaves the queue at once, and its event shows the reason."""
    task = submit(driver, start_at_ms=driver.now + start_in_ms)
    driver.cancel(task, "changed my mind")
    assert driver.get(task).state is State.CANCELLED
    assert driver.events(task)[-1].data["reason"] == "changed my mind"
    assert driver.claim() is None
    assert not driver.zset("live")


@pytest.mark.parametrize("start_in_ms", [0, 9000])
def test_a_tick_expires_a_task_past_its_start_deadline(driver: Driver, start_in_ms: int) -> None:
    """Queued or delayed + start deadline → expired. For a delayed task, the deadline counts from its start time."""
    task = submit(driver, start_at_ms=driver.now + start_in_ms, start_within_ms=1000)
    driver.now += start_in_ms + 999
    assert driver.tick().expired == 0
    driver.now += 1
    assert driver.tick().expired == 1
    assert driver.get(task).state is State.EXPIRED
    assert driver.events(task)[-1].data["reason"] == "start_within"


def test_a_claim_expires_tasks_past_their_start_deadline(driver: Driver) -> None:
    """A claim expires each task that is too late and takes the next that is in time."""
    late = [submit(driver, start_within_ms=1000) for _ in range(120)]
    in_time = submit(driver)
    driver.now += 1000
    claim = driver.claim()
    assert claim is not None
    assert claim.lease.task == in_time
    assert {driver.get(task).state for task in late} == {State.EXPIRED}


def test_a_claim_starts_an_attempt(driver: Driver) -> None:
    """Queued + claim → running: attempt 1 gets a token and a lease.

    The `started` event follows the `queued` event, which keeps its id.
    """
    task = submit(driver, estimate_s=4.0, weight=2.0)
    queued = driver.events(task)
    driver.register("g", ranks=2)
    claim = driver.claim(ranks=2)
    assert claim is not None
    assert (claim.attempt, claim.lease.token.split(".")[0], claim.control) == (1, "1", Control.CONTINUE)
    record = driver.get(task)
    assert (record.state, record.attempt, record.started_ms) == (State.RUNNING, 1, driver.now)
    events = driver.events(task)
    assert events[0] == queued[0]
    assert (events[1].type, events[1].data) == ("started", {"group": "g", "ranks": 2})
    assert driver.zset("tenants") == {}
    assert float(driver.client.hget(driver.keys.single("shares"), "t") or 0) == 2.0
    assert driver.view().groups[0].tasks == (task,)


@pytest.mark.parametrize("ticks", [False, True])
def test_weights_count_that_an_earlier_version_stored(driver: Driver, ticks: bool) -> None:
    """An earlier version stores weights but does not update `equal_weights`.

    With `ticks`, a gateway of this version runs beside a gateway of the earlier version, and calls `tick` before and
    after the earlier version stores the weight.
    """
    if ticks:
        driver.tick()
    submit(driver, estimate_s=4.0)
    driver.client.hset(driver.keys.single("weights"), "t", "4.0")
    if ticks:
        driver.tick()
    assert driver.claim() is not None
    assert float(driver.client.hget(driver.keys.single("shares"), "t") or 0) == 1.0


def test_a_first_weight_counts_before_the_next_tick(driver: Driver) -> None:
    """The tick before the submit found that all weights were equal."""
    driver.tick()
    submit(driver, estimate_s=4.0, weight=4.0)
    assert driver.claim() is not None
    assert float(driver.client.hget(driver.keys.single("shares"), "t") or 0) == 1.0


@pytest.mark.parametrize("by_itself", [True, False])
def test_a_draining_group_claims_nothing(driver: Driver, by_itself: bool) -> None:
    """A group gets no claim while it drains, whether it says so itself or was marked. Its leader sees the mark."""
    first = start(driver)
    submit(driver)
    driver.drain("g")
    assert driver.renew(first.lease) is Control.DRAIN
    driver.drain("g", on=False)
    if not by_itself:
        driver.drain("g")
    assert driver.settle(first.lease, DONE, claim_next=driver.group_record("g", drain=by_itself)).next is None
    assert driver.claim("g", drain=by_itself) is None
    assert driver.claim("other") is not None


def test_a_group_skips_a_task_with_an_unknown_spec_version(driver: Driver) -> None:
    """A group of an older version skips a task whose spec version it does not know. A newer group takes the task."""
    newer = submit(driver, spec_version=2)
    current = submit(driver)
    claim = driver.claim()
    assert claim is not None
    assert claim.lease.task == current
    assert driver.claim("old") is None
    claim = driver.claim("new", spec_version=2)
    assert claim is not None
    assert claim.lease.task == newer
