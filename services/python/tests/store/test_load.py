"""The store under load: fair order, each task once, little memory, a full server and a restart."""

from __future__ import annotations

import collections
import statistics
import threading
import time
from typing import Any

import pytest

from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.domain.ids import new_group_id, new_task_id
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.tasks import Finished, NewTask, Priority, State
from daybreak_server.ports.store_errors import StoreFullError
from daybreak_server.ports.tasks import Submitted
from testkit.store_driver import Driver
from testkit.valkey import Server
from testkit.waiting import wait_until
from verification.queue_model.fairness import FairQueue, order

DONE = Finished(artifacts=())
KEYS = Keys(prefix="daybreak", pool="video")
PROMPT = '{"prompt":"' + "a red circle moving left over a calm sea at dusk, " * 4 + '","steps":20,"seed":7}'


def task(**fields: object) -> NewTask:
    values = {"id": new_task_id("video"), "pool": "video", "tenant": "t", "input_json": "{}", **fields}
    return NewTask(**values)  # type: ignore[arg-type]


async def submit_all(store: RedisStore, tasks: list[NewTask]) -> None:
    for start in range(0, len(tasks), 100):
        answers = await store.submit(tasks[start : start + 100])
        assert all(isinstance(answer, Submitted) for answer in answers)


def group() -> GroupRecord:
    return GroupRecord(id=new_group_id(), state=GroupState.IDLE)


async def test_tasks_are_served_in_fair_order(driver: Driver, server: Server) -> None:
    """Two tenants with weights 1:3 get their shares within 5 %. The tasks of each tenant are in order of priority."""
    store = RedisStore(server.url, library=driver.scripts._library)
    tasks = [
        task(
            tenant="one" if i % 2 else "three",
            weight=1.0 if i % 2 else 3.0,
            priority=Priority(i // 2 % 3),
            estimate_s=1.0,
        )
        for i in range(1000)
    ]
    await submit_all(store, tasks)
    await store.close()
    priorities = {new.id: new.priority for new in tasks}
    submitted_as = {new.id: i for i, new in enumerate(tasks)}
    served: list[tuple[str, str]] = []
    claim = driver.claim()
    while claim is not None:
        served.append((claim.tenant, claim.lease.task))
        driver.pass_time(1000)
        claim = driver.settle(claim.lease, DONE, claim_next=driver.group_record("g")).next
    assert len({name for _, name in served}) == 1000
    for count in (40, 100, 300, 600):  # both tenants still have waiting tasks
        share = sum(tenant == "three" for tenant, _ in served[:count]) / count
        assert share == pytest.approx(0.75, abs=0.05 * 0.75)
    for tenant in ("one", "three"):
        served_order = [(priorities[name], submitted_as[name]) for owner, name in served if owner == tenant]
        assert served_order == sorted(served_order)


def test_an_idle_tenant_saves_up_no_share(driver: Driver) -> None:
    """A tenant that returns after a long pause starts with the pool's virtual time, so the others do not starve."""
    for _ in range(30):
        driver.submit(task(tenant="busy", estimate_s=1.0))
    for _ in range(20):
        claim = driver.claim()
        assert claim is not None
        driver.pass_time(1000)
        driver.settle(claim.lease, DONE)
    for _ in range(10):
        driver.submit(task(tenant="back", estimate_s=1.0))
    served = []
    for _ in range(10):
        claim = driver.claim()
        assert claim is not None
        served.append(claim.tenant)
        driver.pass_time(1000)
        driver.settle(claim.lease, DONE)
    assert collections.Counter(served)["back"] in (5, 6)  # `back` goes first, then both tenants take turns


def test_queue_positions_match_the_model(driver: Driver) -> None:
    """Queue positions match those of the pure model, and the next claim takes the task at position 1."""
    model = FairQueue()
    model.weights = {"b": 3.0}
    submitted = []
    for i in range(60):
        tenant = "abc"[i * 7 % 3]
        new = task(tenant=tenant, weight=model.weight(tenant), priority=Priority(i * 5 % 3), estimate_s=2.0)
        driver.submit(new)
        sort_key = order(new.priority, i + 1)
        model.push(tenant, sort_key, new.id)
        submitted.append((tenant, sort_key, new.id))
    for record, (tenant, sort_key, _) in zip(
        driver.get_all([task_id for _, _, task_id in submitted]), submitted, strict=True
    ):
        assert record is not None
        assert record.position == model.position(tenant, sort_key, 2.0)
    claim = driver.claim()
    assert claim is not None
    (claimed,) = [entry for entry in submitted if entry[2] == claim.lease.task]
    assert model.position(claimed[0], claimed[1], 2.0) == 1


def test_the_wait_estimate_comes_from_the_history(driver: Driver) -> None:
    """There is no estimate until a first task has ended. After that, the estimate grows with the position."""
    driver.register("g")
    for _ in range(5):
        driver.submit(task())
    claim = driver.claim()
    assert claim is not None
    waiting = [record.id for record in (driver.get(name) for name in driver.zset("live")) if record.position]
    assert {driver.get(name).wait_s for name in waiting} == {None}
    driver.pass_time(10_000)
    driver.settle(claim.lease, DONE, claim_next=driver.group_record("g"))
    waits = {record.position: record.wait_s for record in map(driver.get, waiting) if record.position}
    assert waits == {1: 5.0, 2: 15.0, 3: 25.0}


def test_the_wait_estimate_uses_the_running_tasks_eta(driver: Driver) -> None:
    """If a running task has reported an ETA, the estimate uses this ETA, not the history, for the end of that task."""
    driver.register("g")
    for _ in range(4):
        driver.submit(task())
    claim = driver.claim()
    assert claim is not None
    driver.pass_time(10_000)
    running = driver.settle(claim.lease, DONE, claim_next=driver.group_record("g")).next
    assert running is not None
    driver.report(running.lease, eta_s=97.5)
    waits = {r.position: r.wait_s for r in map(driver.get, driver.zset("live")) if r.position}
    assert waits == {1: 97.5, 2: 107.5}


async def test_four_leaders_complete_each_task_once(server: Server) -> None:
    """Four leaders in threads complete each of 200 tasks exactly once. The tasks arrive in bursts."""
    store = RedisStore(server.url)
    done: list[str] = []
    waits: list[float] = []
    submitted: dict[str, float] = {}
    lock = threading.Lock()

    def lead() -> None:
        queue = RedisQueue(server.url, pool="video")
        record = group()
        queue.register(record, ttl_s=60)
        while len(done) < 200:
            claim = queue.claim(record, wait_s=0.5)
            while claim is not None:
                with lock:
                    waits.append(time.monotonic() - submitted[claim.lease.task])
                settled = queue.settle(claim.lease, DONE, claim_next=record)
                assert settled.state is State.SUCCEEDED
                with lock:
                    done.append(claim.lease.task)
                claim = settled.next
        queue.deregister(record)
        queue.close()

    leaders = [threading.Thread(target=lead) for _ in range(4)]
    for leader in leaders:
        leader.start()
    for burst in range(50):
        tasks = [task(tenant=f"t{burst % 3}") for _ in range(4)]
        submitted.update(dict.fromkeys((new.id for new in tasks), time.monotonic()))
        await submit_all(store, tasks)
    wait_until(lambda: len(done) >= 200, 60, "200 tasks to be done")
    for leader in leaders:
        leader.join(30)
        assert not leader.is_alive()
    assert collections.Counter(done) == dict.fromkeys(submitted, 1)
    print(f"\nsubmit to start: p50 {statistics.median(waits) * 1000:.1f} ms, max {max(waits) * 1000:.1f} ms")
    await store.close()


async def test_an_idle_leader_wakes_at_once(server: Server) -> None:
    """A submit wakes an idle leader, which claims the task long before its next poll."""
    store, queue, record = RedisStore(server.url), RedisQueue(server.url, pool="video"), group()
    taken: list[tuple[str, float]] = []

    def lead() -> None:
        claim = queue.claim(record, wait_s=60)
        assert claim is not None
        taken.append((claim.lease.task, time.monotonic()))
        queue.settle(claim.lease, DONE)

    waits = []
    for _ in range(10):
        leader = threading.Thread(target=lead)
        leader.start()
        with server.client() as client:
            wait_until(lambda c=client: c.info("clients")["blocked_clients"] >= 1, 30, "an idle leader")
        taken.clear()
        began = time.monotonic()
        await submit_all(store, [task()])
        leader.join(30)
        waits.append(taken[0][1] - began)
    queue.close()
    await store.close()
    assert statistics.median(waits) < 1.0
    print(f"\nwake: p50 {statistics.median(waits) * 1000:.1f} ms, max {max(waits) * 1000:.1f} ms")


def test_stale_wakeups_do_not_make_leaders_spin(server: Server) -> None:
    """A claim on an empty queue deletes all leftover wake-ups. Otherwise each of them would cause a further claim."""
    queue, record = RedisQueue(server.url, pool="video"), group()
    with server.client() as client:
        client.rpush(KEYS.single("wakeup"), *["1"] * 64)
        client.config_resetstat()
        assert queue.claim(record, wait_s=0.3) is None
        calls = client.info("commandstats").get("cmdstat_fcall", {"calls": 0})["calls"]
    queue.close()
    assert calls <= 5


def _memory(client: Any) -> int:
    """The memory of the keys, without that of connections and of the append-only file's buffer, which vary."""
    info = client.info("memory")
    return int(info["used_memory"] - info["mem_clients_normal"] - info["mem_aof_buffer"])


async def test_a_queued_task_takes_little_memory(server: Server) -> None:
    """A queued task with a 200-character prompt, metadata and an idempotency key takes at most 1.5 KB."""
    store = RedisStore(server.url)
    await submit_all(store, [task()])
    with server.client() as client:
        before = _memory(client)
        count = 1000
        tasks = [
            task(
                input_json=PROMPT,
                tenant=f"tenant-{i % 7}",
                metadata={"order": str(i)},
                idempotency_key=f"key-{i}",
                body_hash="a" * 64,
            )
            for i in range(count)
        ]
        await submit_all(store, tasks)
        bytes_per_task = (_memory(client) - before) / count
        parts = {part: client.memory_usage(KEYS.of(part, tasks[-1].id)) for part in ("task", "spec")}
        assert client.object("encoding", KEYS.of("task", tasks[-1].id)) == b"listpack"
        server_info = client.info("server")
    await store.close()
    version = server_info.get("valkey_version", server_info["redis_version"])
    print(f"\n{version}: {bytes_per_task:.0f} bytes per queued task, {parts}")
    assert bytes_per_task <= 1536


async def test_a_full_server_refuses_only_new_tasks(server: Server) -> None:
    """A server with full memory refuses submits. Leaders still renew leases, settle tasks and claim the next ones."""
    store, queue, record = RedisStore(server.url), RedisQueue(server.url, pool="video"), group()
    await submit_all(store, [task(), task()])
    claim = queue.claim(record, wait_s=1)
    assert claim is not None
    with server.client() as client:
        client.config_set("maxmemory", "1mb")
        try:
            answers = await store.submit([task(), task()])
            assert all(isinstance(answer, StoreFullError) for answer in answers)
            assert queue.renew(claim.lease) == 0
            assert queue.preview(claim.lease, b"p", content_type="image/webp", ttl_s=60) == 0
            settled = queue.settle(claim.lease, DONE, claim_next=record)
            assert settled.state is State.SUCCEEDED
            assert settled.next is not None
            await store.cancel(settled.next.lease.task)
            await store.tick("video")
            assert queue.settle(settled.next.lease, DONE).state is State.CANCELLED
        finally:
            client.config_set("maxmemory", "0")
    queue.close()
    await store.close()


@pytest.mark.parametrize("hard", [False, True])
async def test_a_restart_keeps_records_and_leases(server: Server, hard: bool) -> None:
    """After a restart every record is as before, and a leader still holds its task and can settle it."""
    store, queue, record = RedisStore(server.url), RedisQueue(server.url, pool="video"), group()
    tasks = [task(tenant=f"t{i % 3}") for i in range(50)]
    await submit_all(store, tasks)
    claim = queue.claim(record, wait_s=1)
    assert claim is not None
    before = [await store.get(new.id) for new in tasks]
    server.restart(hard=hard)
    assert [await store.get(new.id) for new in tasks] == before
    assert queue.renew(claim.lease) == 0
    settled = queue.settle(claim.lease, DONE, claim_next=record)
    assert settled.state is State.SUCCEEDED
    assert settled.next is not None
    queue.close()
    await store.close()
