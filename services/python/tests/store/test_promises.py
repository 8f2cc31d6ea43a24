"""Promises of the store that a small mistake would break unseen: what is fair, who is woken, what streams keep."""

from __future__ import annotations

import threading
import time

from daybreak_server.adapters.redis.lua import preview
from daybreak_server.adapters.redis.queue import POLL_S, RedisQueue
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.domain.ids import new_group_id, new_task_id
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.tasks import Claim, Control, EventDraft, Lease, NewTask
from daybreak_server.ports.tasks import Submitted
from testkit.store_cases import DONE, dump, new, start, submit
from testkit.store_driver import Driver
from testkit.valkey import Server
from testkit.waiting import wait_until


def test_shares_are_of_seconds_not_of_tasks(driver: Driver) -> None:
    """A tenant whose tasks take three times as long as estimated gets a third as many of them."""
    for _ in range(40):
        submit(driver, tenant="long", estimate_s=1.0)
        submit(driver, tenant="short", estimate_s=1.0)
    spent = {"long": 0, "short": 0}
    claim = driver.claim()
    for _ in range(40):
        assert claim is not None
        seconds = 3 if claim.tenant == "long" else 1
        driver.pass_time(seconds * 1000)
        spent[claim.tenant] += seconds
        claim = driver.settle(claim.lease, DONE, claim_next=driver.group_record("g")).next
    assert abs(spent["long"] - spent["short"]) <= 4, spent


async def test_each_of_two_waiting_leaders_is_woken(server: Server) -> None:
    """Two tasks come in one submit while two leaders wait: both begin at once, not when they look again."""
    store = RedisStore(server.url)
    claims: list[Claim] = []
    waiting = threading.Barrier(3)

    def lead() -> None:
        queue = RedisQueue(server.url, pool="video")
        me = GroupRecord(id=new_group_id(), state=GroupState.IDLE)
        assert queue.claim(me, wait_s=0.01) is None
        waiting.wait(30)
        claim = queue.claim(me, wait_s=30)
        if claim is not None:
            claims.append(claim)
        queue.close()

    leaders = [threading.Thread(target=lead) for _ in range(2)]
    for leader in leaders:
        leader.start()
    waiting.wait(30)
    with server.client() as client:
        wait_until(lambda: client.info("clients")["blocked_clients"] == 2, 30, "both to wait for the bell")
    began = time.monotonic()
    await store.submit(
        [NewTask(id=new_task_id("video"), pool="video", tenant="t", input_json="{}") for _ in "ab"]
    )
    wait_until(lambda: len(claims) == 2, 30, "both to have a task")
    assert time.monotonic() - began < POLL_S / 2
    for leader in leaders:
        leader.join(30)
    await store.close()


def test_both_streams_have_one_id(driver: Driver) -> None:
    """Every event is in its task's stream and in the pool's under one id, also of two tasks in one script."""
    first = start(driver)
    two = submit(driver)
    driver.report(first.lease, *[EventDraft(type="progress", data={"step": n}) for n in range(3)])
    following = driver.settle(first.lease, DONE, claim_next=driver.group_record("g")).next
    assert following is not None
    driver.settle(following.lease, DONE)
    pool = driver.client.xrange(driver.keys.single("events"))
    for task, count in ((first.lease.task, 6), (two, 3)):
        same = [entry.decode() for entry, fields in pool if fields[b"task"].decode() == task]
        assert [event.id for event in driver.events(task)] == same
        assert len(same) == count


def test_a_burst_takes_nothing_from_a_reader(driver: Driver) -> None:
    """Twenty thousand events later the pool's stream still begins with the first: who follows may be that slow."""
    claim = start(driver)
    first = driver.events(claim.lease.task)[0].id
    for _ in range(40):
        driver.report(claim.lease, *[EventDraft(type="log", data={}) for _ in range(500)])
    stream = driver.keys.single("events")
    assert driver.client.xrange(stream, count=1)[0][0].decode() == first
    assert driver.client.xlen(stream) == 20_002


def test_a_zombie_does_not_overwrite_its_heirs_preview(driver: Driver) -> None:
    """A picture of an attempt that was lost is refused, and the heir's stays."""
    zombie = start(driver, max_strikes=3).lease
    driver.pass_time(20_000)
    heir = driver.claim("h")
    assert heir is not None
    assert _show(driver, heir.lease, b"new") is Control.CONTINUE
    assert _show(driver, zombie, b"old") is Control.STALE
    stored = driver.client.get(driver.keys.of("preview", zombie.task))
    assert stored is not None
    assert preview.split(stored) == (b"new", "image/webp")


def _show(driver: Driver, lease: Lease, image: bytes) -> Control:
    call = preview.encode(driver.keys, lease, image, content_type="image/webp", ttl_s=60)
    return preview.decode(driver.run(call))


def test_a_submit_sent_again_changes_nothing(driver: Driver) -> None:
    """Not a byte, whether its task waits, runs or has ended: no second event, no new place, no new attempt."""
    task = new()
    assert isinstance(driver.submit(task), Submitted)
    _submit_unseen(driver, task)
    claim = driver.claim()
    assert claim is not None
    _submit_unseen(driver, task)
    driver.settle(claim.lease, DONE)
    _submit_unseen(driver, task)


def _submit_unseen(driver: Driver, task: NewTask) -> None:
    before = dump(driver)
    answer = driver.submit(task)
    assert isinstance(answer, Submitted)
    assert answer.record.id == task.id
    assert dump(driver) == before
