"""A group may hold several tasks at once: what it says it has, it keeps; what it does not know of goes back."""

from __future__ import annotations

from dataclasses import replace

from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.serving import Load
from daybreak_server.domain.tasks import Claim, State
from testkit.store_cases import DONE, dump, submit
from testkit.store_driver import Driver
from testkit.valkey import Server


def claimed(driver: Driver, *kept: str) -> Claim:
    claim = driver.claim(kept=kept)
    assert claim is not None
    return claim


def test_a_group_keeps_the_tasks_that_it_names_when_it_claims_another(driver: Driver) -> None:
    """It is busy until the last of them has ended, and idle then."""
    submit(driver)
    submit(driver)
    driver.register("g", fresh=True)
    first = claimed(driver)
    second = claimed(driver, first.lease.task)
    assert driver.view().groups[0].tasks == (first.lease.task, second.lease.task)
    driver.settle(first.lease, DONE)
    (group,) = driver.view().groups
    assert (group.state, group.tasks) == (GroupState.BUSY, (second.lease.task,))
    driver.settle(second.lease, DONE)
    (group,) = driver.view().groups
    assert (group.state, group.tasks) == (GroupState.IDLE, ())


def test_a_claim_whose_answer_was_lost_goes_back_and_the_others_stay(driver: Driver) -> None:
    """The group does not name a task whose claim it never received."""
    submit(driver)
    submit(driver)
    known = claimed(driver)
    lost = claimed(driver, known.lease.task)
    again = claimed(driver, known.lease.task)
    assert (again.lease.task, again.attempt) == (lost.lease.task, 2)
    assert driver.get(known.lease.task).releases == 0
    assert driver.get(lost.lease.task).releases == 1


def test_a_settle_with_a_claim_sent_again_answers_the_same_claim_among_several(driver: Driver) -> None:
    """Its answer was lost: the task that it claimed is the one that the group does not name."""
    for _ in range(3):
        submit(driver)
    first = claimed(driver)
    second = claimed(driver, first.lease.task)
    group = driver.group_record("g", kept=(first.lease.task, second.lease.task))
    settled = driver.settle(first.lease, DONE, claim_next=group)
    before = dump(driver)
    assert driver.settle(first.lease, DONE, claim_next=group) == settled
    assert dump(driver) == before
    assert settled.next is not None
    assert driver.view().groups[0].tasks == (second.lease.task, settled.next.lease.task)


def test_a_group_that_starts_anew_or_leaves_gives_back_all_that_it_held(driver: Driver) -> None:
    """In its place, and without a strike."""
    tasks = [submit(driver), submit(driver)]
    for end in (lambda: driver.register("g", fresh=True), lambda: driver.deregister("g")):
        claimed(driver, claimed(driver).lease.task)
        end()
        states = [(driver.get(task).state, driver.get(task).strikes) for task in tasks]
        assert states == [(State.QUEUED, 0)] * 2


def test_what_a_serving_group_says_of_itself_is_read_back_and_may_be_taken_back(server: Server) -> None:
    """A group of jobs says nothing of the kind."""
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
        (seen,) = driver.view().groups
        assert replace(seen, since_ms=0) == record
    queue.close()
    driver.close()
