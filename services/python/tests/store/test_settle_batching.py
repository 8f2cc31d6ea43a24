"""Tests of a queue that threads share: each settlement gets its own answer, even if threads share
a call or the call fails."""

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
    """An open shared queue."""
    shared = SharedQueue(server.url, pool="video")
    shared.open()
    yield shared
    shared.close()


def group(number: int) -> GroupRecord:
    return GroupRecord(id=GroupId(f"g{number}"), state=GroupState.IDLE)


async def fill(server: Server, number: int) -> set[str]:
    store = RedisStore(server.url)
    tasks = [new() for _ in range(number)]
    assert not [result for result in await store.submit(tasks) if isinstance(result, Exception)]
    await store.close()
    return {task.id for task in tasks}


async def test_many_groups_settle_every_task_once(server: Server, queue: SharedQueue) -> None:
    """Twelve threads share one queue. Each task goes to one thread, and succeeds."""
    submitted, done = await fill(server, TASKS), []
    batch_sizes = []
    settle_each = queue.settle_each
    queue.settle_each = lambda endings: batch_sizes.append(len(endings)) or settle_each(endings)  # type: ignore[method-assign,func-returns-value]

    def serve(number: int) -> None:
        record = group(number)
        queue.register(record, ttl_s=60)
        claim = queue.claim(record, wait_s=0)
        while claim is not None:
            settled = queue.settle(claim.lease, DONE, claim_next=record)
            assert settled.state is State.SUCCEEDED
            done.append(claim.lease.task)
            claim = settled.next
        queue.deregister(record)

    threads = [threading.Thread(target=serve, args=(number,)) for number in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(done) == sorted(submitted)
    assert sum(batch_sizes) == TASKS
    assert max(batch_sizes) > 1


async def test_a_settlement_that_the_server_refuses_fails_no_other(
    server: Server, queue: SharedQueue
) -> None:
    """If the server refuses a batch, the queue sends each settlement alone. In an outage, every settlement of
    the batch fails."""
    await fill(server, 2)
    first, second = (queue.claim(group(number), wait_s=0) for number in range(2))
    assert isinstance(first, Claim)
    assert isinstance(second, Claim)
    settle_each, errors = queue.settle_each, [StoreError("together"), StoreUnavailableError("away")]

    def fail(endings: list[object]) -> list[Settled]:
        if errors:
            raise errors.pop(0)
        return settle_each(endings)  # type: ignore[arg-type]

    queue.settle_each = fail  # type: ignore[method-assign,assignment]
    with pytest.raises(StoreUnavailableError):
        queue.settle(first.lease, DONE)
    assert queue.settle(first.lease, DONE).state is State.SUCCEEDED
    errors.append(StoreError("together"))
    assert queue.settle(second.lease, DONE).state is State.SUCCEEDED


def test_the_last_user_closes_the_shared_queue_and_the_next_opens_a_new_one(server: Server) -> None:
    """The connections stay open as long as any group uses the queue."""
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
