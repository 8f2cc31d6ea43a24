"""Which groups count in the estimate of a task's wait. The tests use a real Valkey or Redis server."""

from __future__ import annotations

import pytest

from daybreak_server.adapters.redis.limits import ESTIMATE_GROUPS_MAX
from daybreak_server.adapters.redis.lua import group
from daybreak_server.domain.ids import GroupId, new_task_id
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.tasks import Finished, NewTask
from daybreak_server.ports.tasks import Submitted
from testkit.store_driver import Driver

WAKE_S = 310.0


def submit(driver: Driver) -> str:
    new = NewTask(id=new_task_id("video"), pool="video", tenant="t", input_json="{}")
    driver.submit(new)
    return new.id


def register(driver: Driver, name: str, state: GroupState, *, wake_s: float = 0.0) -> None:
    wake = {"model": wake_s} if wake_s else {}
    record = GroupRecord(id=GroupId(name), state=state, wake=wake)
    driver.run(group.encode(driver.keys, record, ttl_s=600))


def give_history(driver: Driver) -> None:
    """The pool's last wake took ``WAKE_S`` and its only task ran for 10 s. No group is left."""
    register(driver, "first", GroupState.IDLE, wake_s=WAKE_S)
    submit(driver)
    claim = driver.claim("first")
    assert claim is not None
    driver.pass_time(10_000)
    driver.settle(claim.lease, Finished(artifacts=()))
    driver.deregister("first")


@pytest.mark.parametrize("state", GroupState)
def test_only_a_group_that_accepts_tasks_shortens_the_wait(driver: Driver, state: GroupState) -> None:
    """A group that is starting, loading, draining or lost takes no task, so the estimate is the time of a wake."""
    give_history(driver)
    register(driver, "g", state)
    wait_s = driver.get(submit(driver)).wait_s
    expected = {GroupState.IDLE: 0.0, GroupState.BUSY: 5.0}.get(state, WAKE_S)
    assert (wait_s, state.accepts_tasks) == (expected, expected < WAKE_S)


def test_a_group_that_is_marked_to_drain_does_not_shorten_the_wait(driver: Driver) -> None:
    """Neither the group nor the end of its task counts: the next task waits for another group."""
    give_history(driver)
    register(driver, "g", GroupState.IDLE)
    submit(driver)
    claim = driver.claim("g")
    assert claim is not None
    driver.report(claim.lease, eta_s=1.5)
    waiting = submit(driver)
    assert driver.get(waiting).wait_s == 1.5
    driver.drain("g")
    assert driver.get(waiting).wait_s == WAKE_S
    register(driver, "next", GroupState.LOADING)
    assert driver.get(waiting).wait_s == WAKE_S
    register(driver, "next", GroupState.IDLE)
    assert driver.get(waiting).wait_s == 0.0


def test_in_a_large_pool_the_groups_that_are_not_read_count_like_those_that_are(driver: Driver) -> None:
    """Half of the groups are busy, and the others load. No estimate reads all of them."""
    give_history(driver)
    groups = 2 * ESTIMATE_GROUPS_MAX
    for number in range(groups):
        register(driver, f"g{number:02}", GroupState.BUSY if number % 2 else GroupState.LOADING)
    assert driver.get(submit(driver)).wait_s == pytest.approx(10.0 / (groups / 2) / 2)


def test_submit_answers_the_same_wait_as_a_later_look(driver: Driver) -> None:
    """The estimate in the answer to a submit counts the same groups as a later estimate."""
    give_history(driver)
    register(driver, "g", GroupState.LOADING)
    new = NewTask(id=new_task_id("video"), pool="video", tenant="t", input_json="{}")
    submitted = driver.submit(new)
    assert isinstance(submitted, Submitted)
    assert submitted.record.wait_s == driver.get(new.id).wait_s == WAKE_S
