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


def test_submit_queues_with_record_index_and_event(driver: Driver) -> None:
    """A submitted task is queued, live, listed, at position 1, and has one event."""
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


def test_submit_ahead_is_delayed_then_promoted(driver: Driver) -> None:
    """A start ahead delays; when it is due the task takes its original place and the bell rings."""
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


def test_same_key_same_body_is_the_same_task(driver: Driver) -> None:
    """An idempotency key finds its task again; with another body it is refused; per tenant."""
    first = driver.submit(new(idempotency_key="k", body_hash="a" * 64))
    again = driver.submit(new(idempotency_key="k", body_hash="a" * 64))
    other = driver.submit(new(idempotency_key="k", body_hash="b" * 64))
    foreign = driver.submit(new(idempotency_key="k", body_hash="b" * 64, tenant="u"))
    assert isinstance(first, Submitted)
    assert isinstance(again, Submitted)
    assert (again.record.id, again.repeated, first.repeated) == (first.record.id, True, False)
    assert isinstance(other, IdempotencyMismatchError)
    assert isinstance(foreign, Submitted)
    assert foreign.record.id != first.record.id


def test_same_id_is_the_same_submit(driver: Driver) -> None:
    """A submit that is repeated because its answer was lost is no second task."""
    task = new()
    answers = [driver.submit(task), driver.submit(task)]
    assert all(isinstance(answer, Submitted) and not answer.repeated for answer in answers)
    assert driver.view().queued == 1


def test_full_queue_refuses(driver: Driver) -> None:
    """At the bound on waiting tasks a submit is refused; running ones do not count."""
    assert isinstance(driver.submit(new(), max_queued=1), Submitted)
    assert isinstance(driver.submit(new(), max_queued=1), QueueFullError)
    driver.claim()
    assert isinstance(driver.submit(new(start_at_ms=driver.now + 9000), max_queued=1), Submitted)
    assert isinstance(driver.submit(new(), max_queued=1), QueueFullError)


@pytest.mark.parametrize("ahead", [0, 9000])
def test_cancel_while_waiting(driver: Driver, ahead: int) -> None:
    """Q, D + cancel → C: it leaves the queue at once, with its reason."""
    task = submit(driver, start_at_ms=driver.now + ahead)
    driver.cancel(task, "changed my mind")
    assert driver.get(task).state is State.CANCELLED
    assert driver.events(task)[-1].data["reason"] == "changed my mind"
    assert driver.claim() is None
    assert not driver.zset("live")


@pytest.mark.parametrize("ahead", [0, 9000])
def test_start_deadline_expires_in_tick(driver: Driver, ahead: int) -> None:
    """Q, D + queue deadline → X by a tick; a delayed task's time begins when it is due."""
    task = submit(driver, start_at_ms=driver.now + ahead, start_within_ms=1000)
    driver.now += ahead + 999
    assert driver.tick().expired == 0
    driver.now += 1
    assert driver.tick().expired == 1
    assert driver.get(task).state is State.EXPIRED
    assert driver.events(task)[-1].data["reason"] == "start_within"


def test_start_deadline_expires_in_claim(driver: Driver) -> None:
    """A task that is too late is expired by the claim that finds it, which takes the next one."""
    late = [submit(driver, start_within_ms=1000) for _ in range(120)]
    good = submit(driver)
    driver.now += 1000
    claim = driver.claim()
    assert claim is not None
    assert claim.lease.task == good
    assert {driver.get(task).state for task in late} == {State.EXPIRED}


def test_claim_starts_an_attempt(driver: Driver) -> None:
    """Q + claim → R: attempt 1, token, lease, events `queued` (its old id) and `started`."""
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


@pytest.mark.parametrize("by_itself", [True, False])
def test_draining_group_claims_nothing(driver: Driver, by_itself: bool) -> None:
    """No claim for a group that drains, whether it says so or was marked; a mark reaches its worker."""
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


def test_unknown_spec_version_is_left_for_others(driver: Driver) -> None:
    """An older worker passes over a task whose spec it does not know; a newer one takes it."""
    new_kind = submit(driver, spec_version=2)
    plain = submit(driver)
    claim = driver.claim()
    assert claim is not None
    assert claim.lease.task == plain
    assert driver.claim("old") is None
    claim = driver.claim("new", spec_version=2)
    assert claim is not None
    assert claim.lease.task == new_kind
