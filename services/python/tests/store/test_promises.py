"""Tests of promises that a small mistake would break unnoticed.

The promises are about fair shares, wake-ups, event streams, previews and repeated submits.
"""

from __future__ import annotations

import threading

from daybreak_server.adapters.redis.lua import preview
from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.domain.ids import new_group_id, new_task_id
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.tasks import Claim, Control, EventDraft, Lease, NewTask
from daybreak_server.ports.tasks import Submitted
from testkit.store_cases import DONE, dump, new, start, submit
from testkit.store_driver import Driver
from testkit.valkey import Server
from testkit.waiting import wait_until


def test_fair_shares_count_gpu_seconds_not_tasks(driver: Driver) -> None:
    """Two tenants get equally many seconds, although one tenant's tasks take three times their estimate."""
    for _ in range(40):
        submit(driver, tenant="long", estimate_s=1.0)
        submit(driver, tenant="short", estimate_s=1.0)
    seconds_used = {"long": 0, "short": 0}
    claim = driver.claim()
    for _ in range(40):
        assert claim is not None
        seconds = 3 if claim.tenant == "long" else 1
        driver.pass_time(seconds * 1000)
        seconds_used[claim.tenant] += seconds
        claim = driver.settle(claim.lease, DONE, claim_next=driver.group_record("g")).next
    assert abs(seconds_used["long"] - seconds_used["short"]) <= 4, seconds_used


async def test_two_tasks_wake_two_waiting_leaders(server: Server) -> None:
    """A submit of two tasks wakes both waiting leaders at once. Neither has to wait for its next poll."""
    store = RedisStore(server.url)
    claims: list[Claim] = []
    woken_s: list[float] = []
    both_ready = threading.Barrier(3)

    def lead() -> None:
        queue = RedisQueue(server.url, pool="video", on_woken=woken_s.append)
        record = GroupRecord(id=new_group_id(), state=GroupState.IDLE)
        assert queue.claim(record, wait_s=0.01) is None
        both_ready.wait(30)
        claim = queue.claim(record, wait_s=30)
        if claim is not None:
            claims.append(claim)
        queue.close()

    leaders = [threading.Thread(target=lead) for _ in range(2)]
    for leader in leaders:
        leader.start()
    both_ready.wait(30)
    with server.client() as client:
        wait_until(
            lambda: client.info("clients")["blocked_clients"] == 2,
            30,
            "both leaders to wait for a wake-up",
        )
    await store.submit(
        [NewTask(id=new_task_id("video"), pool="video", tenant="t", input_json="{}") for _ in "ab"]
    )
    wait_until(lambda: len(claims) == 2, 30, "both leaders to have a task")
    assert len(woken_s) == 2, "a leader found its task without a wake-up"
    for leader in leaders:
        leader.join(30)
    await store.close()


def test_an_event_has_the_same_id_in_both_streams(driver: Driver) -> None:
    """A task's stream and the pool's stream agree, even when one script writes events of two tasks."""
    first = start(driver)
    second = submit(driver)
    driver.report(first.lease, *[EventDraft(type="progress", data={"step": n}) for n in range(3)])
    following = driver.settle(first.lease, DONE, claim_next=driver.group_record("g")).next
    assert following is not None
    driver.settle(following.lease, DONE)
    pool_entries = driver.client.xrange(driver.keys.single("events"))
    for task, count in ((first.lease.task, 6), (second, 3)):
        ids = [entry.decode() for entry, fields in pool_entries if fields[b"task"].decode() == task]
        assert [event.id for event in driver.events(task)] == ids
        assert len(ids) == count


def test_a_burst_of_events_trims_nothing(driver: Driver) -> None:
    """After 20,000 events the pool's stream still begins with the first event, so a slow reader misses no event."""
    claim = start(driver)
    first_id = driver.events(claim.lease.task)[0].id
    for _ in range(40):
        driver.report(claim.lease, *[EventDraft(type="log", data={}) for _ in range(500)])
    stream = driver.keys.single("events")
    assert driver.client.xrange(stream, count=1)[0][0].decode() == first_id
    assert driver.client.xlen(stream) == 20_002


def test_a_zombie_does_not_overwrite_the_new_attempts_preview(driver: Driver) -> None:
    """The store refuses the preview of a lost attempt and keeps the preview of the new one."""
    zombie = start(driver, max_strikes=3).lease
    driver.pass_time(20_000)
    current = driver.claim("h")
    assert current is not None
    assert _set_preview(driver, current.lease, b"new") is Control.CONTINUE
    assert _set_preview(driver, zombie, b"old") is Control.STALE
    stored = driver.client.get(driver.keys.of("preview", zombie.task))
    assert stored is not None
    assert preview.split(stored) == (b"new", "image/webp")


def _set_preview(driver: Driver, lease: Lease, image: bytes) -> Control:
    call = preview.encode(driver.keys, lease, image, content_type="image/webp", ttl_s=60)
    return preview.decode(driver.run(call))


def test_a_submit_sent_again_changes_nothing(driver: Driver) -> None:
    """The repeated submit does not change a byte in Redis, whether its task waits, runs or has ended."""
    task = new()
    assert isinstance(driver.submit(task), Submitted)
    _submit_again_unchanged(driver, task)
    claim = driver.claim()
    assert claim is not None
    _submit_again_unchanged(driver, task)
    driver.settle(claim.lease, DONE)
    _submit_again_unchanged(driver, task)


def _submit_again_unchanged(driver: Driver, task: NewTask) -> None:
    before = dump(driver)
    answer = driver.submit(task)
    assert isinstance(answer, Submitted)
    assert answer.record.id == task.id
    assert dump(driver) == before
