"""A queue that threads share: every settlement has its own answer, alone or in company, also when a call fails."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from daybreak_server.adapters.redis.settle_batching import SharedQueue, shared_queue_factory
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.tasks import Claim, Settled, State
from daybreak_server.ports.store_errors import StoreError, StoreUnavailableError
from testkit.store_cases import DONE, new
from testkit.valkey import Server

THREADS, TASKS = 12, 180


@pytest.fixture
def queue(server: Server) -> Iterator[SharedQueue]:
    """One queue, open once."""
    found = SharedQueue(server.url, pool="video")
    found.open()
    yield found
    found.close()


def group(number: int) -> GroupRecord:
    return GroupRecord(id=GroupId(f"g{number}"), state=GroupState.IDLE)


async def fill(server: Server, number: int) -> set[str]:
    store = RedisStore(server.url)
    tasks = [new() for _ in range(number)]
    assert not [result for result in await store.submit(tasks) if isinstance(result, Exception)]
    await store.close()
    return {task.id for task in tasks}


async def test_many_groups_settle_every_task_once(server: Server, queue: SharedQueue) -> None:
    """Twelve threads, one queue: each task is handed to one of them, and succeeds."""
    wanted, done = await fill(server, TASKS), []
    calls = []
    plain = queue.settle_each
    queue.settle_each = lambda endings: calls.append(len(endings)) or plain(endings)  # type: ignore[method-assign,func-returns-value]

    def serve(number: int) -> None:
        me = group(number)
        queue.register(me, ttl_s=60)
        claim = queue.claim(me, wait_s=0)
        while claim is not None:
            settled = queue.settle(claim.lease, DONE, claim_next=me)
            assert settled.state is State.SUCCEEDED
            done.append(claim.lease.task)
            claim = settled.next
        queue.deregister(me)

    threads = [threading.Thread(target=serve, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(done) == sorted(wanted)
    assert sum(calls) == TASKS
    assert max(calls) > 1


async def test_one_settlement_that_the_server_refuses_is_nobody_elses(
    server: Server, queue: SharedQueue
) -> None:
    """After an error, each settle is tried alone; an outage fails all of them."""
    await fill(server, 2)
    first, second = (queue.claim(group(number), wait_s=0) for number in range(2))
    assert isinstance(first, Claim)
    assert isinstance(second, Claim)
    plain, trouble = queue.settle_each, [StoreError("together"), StoreUnavailableError("away")]

    def fail(endings: list[object]) -> list[Settled]:
        if trouble:
            raise trouble.pop(0)
        return plain(endings)  # type: ignore[arg-type]

    queue.settle_each = fail  # type: ignore[method-assign,assignment]
    with pytest.raises(StoreUnavailableError):
        queue.settle(first.lease, DONE)
    assert queue.settle(first.lease, DONE).state is State.SUCCEEDED
    trouble.append(StoreError("together"))
    assert queue.settle(second.lease, DONE).state is State.SUCCEEDED


def test_the_last_to_close_it_closes_it_and_the_next_opens_another(server: Server) -> None:
    """Groups come and go; the connections stay while one is there."""
    get = shared_queue_factory(lambda: SharedQueue(server.url, pool="video"))
    first = get()
    assert get() is first
    first.close()
    assert first.claim(group(1), wait_s=0) is None
    first.deregister(group(1))
    first.close()
    second = get()
    assert second is not first
    second.close()
