"""The store works over connections that break."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis
import uvloop

from daybreak_server.adapters.redis.client import connect, connect_async
from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.domain.ids import GroupId, new_task_id
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.tasks import CheckpointRef, EventDraft, NewTask
from daybreak_server.engines.common.progress import EventBuffer
from daybreak_server.ports.store_errors import StoreUnavailableError
from daybreak_server.workloads.base import Step
from testkit.store_driver import Driver
from testkit.valkey import Server
from verification.faults.environment.proxy import TcpProxy


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_connections_reset_while_idle_are_not_used(
    server: Server, run: Callable[[Coroutine[Any, Any, Any]], Any]
) -> None:
    """After a reset of all open connections, the next calls get replies, even calls that the store never repeats."""
    port = urlsplit(server.url).port
    assert port is not None

    async def burst(proxy: TcpProxy) -> None:
        store = RedisStore(f"redis://127.0.0.1:{proxy.port}")
        try:
            for _ in range(3):
                await asyncio.gather(*(store.ping() for _ in range(8)))
                assert proxy.open == 8
                await asyncio.to_thread(proxy.cut)
                await asyncio.sleep(0.05)
        finally:
            await store.close()

    with TcpProxy(("127.0.0.1", port)) as proxy:
        run(burst(proxy))


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that answers no new connection, like the address of a deleted pod. Here, the reason is a full backlog."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        while True:
            client = stack.enter_context(socket.socket())
            client.settimeout(0.2)
            try:
                client.connect(listener.getsockname())
            except TimeoutError:
                break
        yield listener.getsockname()[1]


@pytest.mark.timeout(120)
def test_an_address_that_does_not_answer_is_given_up_long_before_the_timeout_of_a_call(
    silent_port: int,
) -> None:
    """A client that gives up soon can connect again before the lease ends, and may find Redis at a new address."""
    url = f"redis://127.0.0.1:{silent_port}"
    with connect(url, timeout_s=600) as client, pytest.raises(redis.TimeoutError):
        client.ping()

    async def ping() -> None:
        async with connect_async(url, timeout_s=600) as async_client:
            await async_client.ping()

    with pytest.raises(redis.TimeoutError):
        asyncio.run(ping())


async def _submit(url: str, task: NewTask) -> None:
    store = RedisStore(url)
    try:
        await store.submit([task])
    finally:
        await store.close()


def test_a_report_whose_answer_is_lost_writes_no_event_twice(server: Server, driver: Driver) -> None:
    """The leader cannot know that its report was written, so it repeats the report together with newer events."""
    port = urlsplit(server.url).port
    assert port is not None
    task = new_task_id("video")
    asyncio.run(_submit(server.url, NewTask(id=task, pool="video", tenant="t", input_json="{}")))
    with TcpProxy(("127.0.0.1", port)) as proxy:
        queue = RedisQueue(f"redis://127.0.0.1:{proxy.port}", pool="video")
        try:
            claim = queue.claim(GroupRecord(id=GroupId("g"), state=GroupState.IDLE, ranks=1), wait_s=5)
            assert claim is not None
            # Load the scripts now. Otherwise, the answer that is lost below would be the error about missing scripts.
            queue.report(claim.lease, [])
            outbox, checkpoint = EventBuffer(), CheckpointRef(key="c", step=1)
            outbox.step(Step(phase="echo", fraction=0.1, step=1, steps=10), fraction=0.1, eta_s=None)
            outbox.note(EventDraft(type="log", data={"message": "once"}))
            events, fields = outbox.take()
            proxy.lose_replies(1, match=task.encode())
            with pytest.raises(StoreUnavailableError):
                queue.report(claim.lease, events, checkpoint=checkpoint, fields=fields)
            assert proxy.counts.lost_replies == 1
            outbox.step(Step(phase="echo", fraction=0.2, step=2, steps=10), fraction=0.2, eta_s=None)
            events, fields = outbox.take()
            queue.report(claim.lease, events, checkpoint=checkpoint, fields=fields)
        finally:
            queue.close()
    assert driver.types(task) == ["queued", "started", "progress", "log", "checkpoint", "progress"]
    assert driver.get(task).step == 2
