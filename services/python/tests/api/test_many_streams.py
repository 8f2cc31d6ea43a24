"""Many clients follow one task, and a client that is too slow does not hold up the others."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit

import pytest
from api_support import POOL, Api, FakeLeader, read_events
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from daybreak_server.adapters.redis.events import RedisEvents
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.api.asyncio_tasks import cancel_and_wait
from daybreak_server.api.intake.catalog import PoolViewCache
from daybreak_server.api.services import wall_ms
from daybreak_server.api.streaming.broadcaster import Broadcaster
from daybreak_server.api.streaming.frames import Frame
from daybreak_server.api.streaming.subscription import Sources, Subscription
from daybreak_server.domain.ids import TaskId, new_task_id
from daybreak_server.domain.tasks import EventDraft, NewTask
from daybreak_server.observability.gateway_metrics import GatewayMetrics
from testkit.valkey import Server
from testkit.waiting import wait_until_async

CLIENTS = 200
EVENTS = 300
TRY_AGAIN = 1013
"""The code with which an overloaded server closes a WebSocket, like 503 in HTTP. The client then reconnects."""
TERMINAL = ("succeeded", "failed", "cancelled", "expired")


class Client:
    """Follows a task by SSE or WebSocket, disconnects at random, and reconnects with its last event id."""

    def __init__(self, api: Api, task: str, seed: int) -> None:
        self.random = random.Random(seed)
        self.seen: list[str] = []
        self.resets = 0
        self.connections = 0
        self.refused = 0
        self._api = api
        self._path = f"/v1/tasks/{task}"
        self._ended = False

    async def run(self) -> None:
        while not self._ended:
            self.connections += 1
            max_events = self.random.randint(1, 200)
            follow = self._sse if self.random.random() < 0.5 else self._ws
            await follow(max_events)
            await asyncio.sleep(self.random.random() * 0.1)

    def _take(self, event: dict[str, Any]) -> None:
        if "id" in event:
            self.seen.append(event["id"])
        self.resets += event["type"] == "reset"
        self._ended = event["type"] in TERMINAL

    async def _ws(self, max_events: int) -> None:
        query = f"?after={self.seen[-1]}" if self.seen else ""
        url = self._api.url.replace("http", "ws", 1) + self._path + "/ws" + query
        async with connect(url, open_timeout=120, ping_interval=None) as socket:
            try:
                for _ in range(max_events):
                    self._take(json.loads(await socket.recv()))
            except ConnectionClosed as closed:
                code = closed.rcvd.code if closed.rcvd else None
                self.refused += code == TRY_AGAIN
                assert (code == 1000 and self._ended) or code == TRY_AGAIN, code
                return
            if not self._ended:
                socket.transport.abort()  # A crashed client does not send a closing handshake.

    async def _sse(self, max_events: int) -> None:
        parts = urlsplit(self._api.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            last = f"Last-Event-ID: {self.seen[-1]}\r\n" if self.seen else ""
            writer.write(f"GET {self._path}/events HTTP/1.1\r\nHost: localhost\r\n{last}\r\n".encode())
            status = (await reader.readline()).split()[1]
            self.refused += status == b"503"
            assert status in (b"200", b"503"), status
            events_left = max_events if status == b"200" else 0
            while events_left and not self._ended:
                line = await reader.readline()
                if not line:  # The server could not read the history at this moment.
                    self.refused += 1
                    break
                if line.startswith(b"data: "):  # Ignore chunk sizes and other lines.
                    self._take(json.loads(line[6:]))
                    events_left -= 1
        finally:
            writer.transport.abort()


def write_all(leader: FakeLeader, started: threading.Event) -> None:
    claim = leader.claim()
    started.wait(120)
    for first in range(0, EVENTS, 5):
        drafts = [EventDraft(type="log", data={"message": str(n)}) for n in range(first, first + 5)]
        leader.queue.report(claim.lease, drafts)
        time.sleep(0.02)  # Clients connect and disconnect while events are written.
    leader.finish(claim)


async def test_200_clients_see_every_event_once_in_order(api: Api, leader: FakeLeader) -> None:
    """SSE and WebSocket clients that disconnect and reconnect at random miss nothing and see nothing twice."""
    task = api.submit()["id"]
    clients_started = threading.Event()
    writer = threading.Thread(target=write_all, args=(leader, clients_started))
    writer.start()
    clients = [Client(api, task, seed) for seed in range(CLIENTS)]
    clients_started.set()
    await asyncio.wait_for(asyncio.gather(*(client.run() for client in clients)), 240)
    writer.join(60)
    expected = [event["id"] for event in await asyncio.to_thread(read_events, api.url, task)]
    assert len(expected) == EVENTS + 3
    for client in clients:
        assert client.seen == expected
        assert client.resets == 0
    connections = sum(client.connections for client in clients)
    print(f"{connections} connections, {sum(client.refused for client in clients)} refused temporarily")
    # With fewer connections, this run would prove little about reconnecting.
    assert connections > 2 * CLIENTS
    await wait_until_async(lambda: _closed(api), 30, "the reader to stop after the last client")


async def _closed(api: Api) -> bool:
    return not api.context.broadcaster.feed(POOL).reading


@pytest.fixture
async def sources(valkey: Server) -> Any:
    """The sources of events for subscriptions in this test's event loop. Each subscription queues at most 20 frames."""
    store, events = RedisStore(valkey.url), RedisEvents(valkey.url)
    metrics = GatewayMetrics()
    broadcaster = Broadcaster(events, metrics)
    yield Sources(
        broadcaster=broadcaster,
        store=store,
        events=events,
        pool_views=PoolViewCache(store, wall_ms),
        now_ms=wall_ms,
        heartbeat_s=1.0,
        timeout_s=30.0,
        queue_limit=20,
    )
    await broadcaster.close()
    await store.close()
    await events.close()


async def test_a_slow_subscriber_gets_a_reset_instead_of_a_growing_queue(
    sources: Sources, start_leader: Callable[..., FakeLeader]
) -> None:
    """A subscriber that does not read gets the task's present state in a `reset`, and continues from there. A fast
    subscriber sees every event."""
    leader = start_leader()
    task = TaskId(new_task_id(POOL))
    await sources.store.submit([NewTask(id=task, pool=POOL, tenant="default", input_json="{}")])
    claim = await asyncio.to_thread(leader.claim)
    async with Subscription(sources, task, POOL, after=None) as slow:
        quick = asyncio.create_task(_collect(sources, task))
        async with aclosing(slow.batches()) as batches:
            frames = _flat(batches)
            assert [(await anext(frames)).type for _ in range(2)] == ["queued", "started"]
            for n in range(100):
                await asyncio.to_thread(
                    leader.queue.report, claim.lease, [EventDraft(type="log", data={"message": str(n)})]
                )
            await wait_until_async(lambda: _is_lagging(slow), 30, "the slow subscriber to lag")
            reset = await anext(frames)
            assert reset.type == "reset"
            assert json.loads(reset.body)["data"]["task"]["state"] == "running"
            await asyncio.to_thread(
                leader.queue.report, claim.lease, [EventDraft(type="log", data={"message": "after"})]
            )
            after_reset = await anext(frames)
            assert json.loads(after_reset.body)["data"]["message"] == "after"
            await asyncio.to_thread(leader.finish, claim)
            rest = [frame.type async for frame in frames]
            assert rest == ["succeeded"]
    received = await asyncio.wait_for(quick, 60)
    assert [f.type for f in received] == ["queued", "started", *["log"] * 101, "succeeded"]


async def test_a_lagging_subscriber_still_gets_the_last_event(
    sources: Sources, start_leader: Callable[..., FakeLeader]
) -> None:
    """If the task ends while the subscriber lags, the subscriber gets the `reset` and then the terminal event."""
    leader = start_leader()
    task = TaskId(new_task_id(POOL))
    await sources.store.submit([NewTask(id=task, pool=POOL, tenant="default", input_json="{}")])
    claim = await asyncio.to_thread(leader.claim)
    async with Subscription(sources, task, POOL, after=None) as slow, aclosing(slow.batches()) as batches:
        frames = _flat(batches)
        await anext(frames)
        drafts = [EventDraft(type="log", data={"message": "x"})] * 50
        await asyncio.to_thread(leader.queue.report, claim.lease, drafts)
        await asyncio.to_thread(leader.finish, claim)
        await wait_until_async(lambda: _is_lagging(slow), 30, "the subscriber to lag")
        kinds = [frame.type async for frame in frames]
    assert kinds[-1] == "succeeded"
    assert kinds.count("succeeded") == 1


async def _is_lagging(subscription: Subscription) -> bool:
    return subscription.lagging


async def _flat(batches: AsyncIterator[list[Frame]]) -> AsyncIterator[Frame]:
    async for batch in batches:
        for frame in batch:
            yield frame


async def _collect(sources: Sources, task: TaskId) -> list[Frame]:
    async with Subscription(sources, task, POOL, after=None) as subscription:
        return [frame async for frame in _flat(subscription.batches())]


async def test_a_coroutine_that_swallows_a_cancel_is_cancelled_again() -> None:
    """redis-py on Python 3.11 can swallow a cancel, so `cancel_and_wait` cancels until the task ends."""
    cancels = 0

    async def swallow_a_cancel() -> None:
        nonlocal cancels
        while cancels < 2:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancels += 1
        raise RuntimeError("ended")

    task = asyncio.create_task(swallow_a_cancel())
    await asyncio.sleep(0)
    await asyncio.wait_for(cancel_and_wait(task), 30)
    assert (task.done(), cancels) == (True, 2)
