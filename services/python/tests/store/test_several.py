"""A group may hold several tasks at once. Each claim names the tasks that the group keeps.

The store releases the group's other tasks.
"""

from __future__ import annotations

from dataclasses import replace

from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.serving_load import Load
from daybreak_server.domain.tasks import Claim, State
from testkit.store_cases import DONE, dump, submit
from testkit.store_driver import Driver
from testkit.valkey import Server


def claim_task(driver: Driver, *kept: str) -> Claim:
    claim = driver.claim(kept=kept)
    assert claim is not None
    return claim


def test_a_group_keeps_the_tasks_that_it_names_when_it_claims_another(driver: Driver) -> None:
    """The group is busy until its last task has ended, and then idle."""
    submit(driver)
    submit(driver)
    driver.register("g", fresh=True)
    first = claim_task(driver)
    second = claim_task(driver, first.lease.task)
    assert driver.view().groups[0].tasks == (first.lease.task, second.lease.task)
    driver.settle(first.lease, DONE)
    (group,) = driver.view().groups
    assert (group.state, group.tasks) == (GroupState.BUSY, (second.lease.task,))
    driver.settle(second.lease, DONE)
    (group,) = driver.view().groups
    assert (group.state, group.tasks) == (GroupState.IDLE, ())


def test_a_task_whose_claim_was_lost_is_released_and_the_others_stay(driver: Driver) -> None:
    """The group never received the answer to its second claim, so its third claim names only the first task."""
    submit(driver)
    submit(driver)
    known = claim_task(driver)
    lost = claim_task(driver, known.lease.task)
    again = claim_task(driver, known.lease.task)
    assert (again.lease.task, again.attempt) == (lost.lease.task, 2)
    assert driver.get(known.lease.task).releases == 0
    assert driver.get(lost.lease.task).releases == 1


def test_a_repeated_settle_with_a_claim_returns_the_same_claim(driver: Driver) -> None:
    """The group did not get the answer to its first call, so its second call does not name the newly claimed task."""
    for _ in range(3):
        submit(driver)
    first = claim_task(driver)
    second = claim_task(driver, first.lease.task)
    group = driver.group_record("g", kept=(first.lease.task, second.lease.task))
    settled = driver.settle(first.lease, DONE, claim_next=group)
    before = dump(driver)
    assert driver.settle(first.lease, DONE, claim_next=group) == settled
    assert dump(driver) == before
    assert settled.next is not None
    assert driver.view().groups[0].tasks == (second.lease.task, settled.next.lease.task)


def test_a_group_that_restarts_or_leaves_releases_all_its_tasks(driver: Driver) -> None:
    """Each task returns to its original place, without a strike."""
    tasks = [submit(driver), submit(driver)]
    for end in (lambda: driver.register("g", fresh=True), lambda: driver.deregister("g")):
        claim_task(driver, claim_task(driver).lease.task)
        end()
        states = [(driver.get(task).state, driver.get(task).strikes) for task in tasks]
        assert states == [(State.QUEUED, 0)] * 2


def test_a_serving_group_can_publish_and_withdraw_its_endpoint_and_load(server: Server) -> None:
    """A record without endpoint and load removes the endpoint and the load of the group's earlier record."""
    queue, driver = RedisQueue(server.url, pool="video"), Driver(server.url)
    serving = GroupRecord(
        id=GroupId("g-1"),
        state=GroupState.IDLE,
        endpoint="http://10.0.0.7:9000",
        models=("small", "large"),
        capacity=8,
        load=Load(in_flight=3, waiting=1, sessions=2, free_memory_bytes=1 << 30),
    )
    plain = GroupRecord(id=GroupId("g-1"), state=GroupState.IDLE)
    for record in (serving, plain):
        queue.register(record, ttl_s=60)
        (shown,) = driver.view().groups
        assert replace(shown, since_ms=0) == record
    queue.close()
    driver.close()
