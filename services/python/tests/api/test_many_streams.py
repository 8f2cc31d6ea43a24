"""Many clients on one task, and one that is too slow."""

from __future__ import annotations

import asyncio
import json
import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any
from urllib.parse import urlsplit

import pytest
from api_support import POOL, Api, Worker, read_events
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from daybreak_server.adapters.redis.events import RedisEvents
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.api.cancellation import ended
from daybreak_server.api.services import wall_ms
from daybreak_server.api.store.catalog import PoolViewCache
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
"""What an overloaded server says, as 503 does: a client comes back then, and must not have lost anything."""
TERMINAL = ("succeeded", "failed", "cancelled", "expired")


class Client:
    """Follows by SSE or WebSocket, drops its connection at random, and comes back with the last id it saw."""

    def __init__(self, api: Api, task: str, seed: int) -> None:
        self.random = random.Random(seed)
        self.seen: list[str] = []
        self.resets = 0
        self.connections = 0
        self.refused = 0
        self._api = api
        self._path = f"/v1/tasks/{task}"
        self._over = False

    async def run(self) -> None:
        while not self._over:
            self.connections += 1
            patience = self.random.randint(1, 200)
            follow = self._sse if self.random.random() < 0.5 else self._ws
            await follow(patience)
            await asyncio.sleep(self.random.random() * 0.1)

    def _take(self, event: dict[str, Any]) -> None:
        if "id" in event:
            self.seen.append(event["id"])
        self.resets += event["type"] == "reset"
        self._over = event["type"] in TERMINAL

    async def _ws(self, patience: int) -> None:
        query = f"?after={self.seen[-1]}" if self.seen else ""
        url = self._api.url.replace("http", "ws", 1) + self._path + "/ws" + query
        async with connect(url, open_timeout=120, ping_interval=None) as socket:
            try:
                for _ in range(patience):
                    self._take(json.loads(await socket.recv()))
            except ConnectionClosed as closed:
                code = closed.rcvd.code if closed.rcvd else None
                self.refused += code == TRY_AGAIN
                assert (code == 1000 and self._over) or code == TRY_AGAIN, code
                return
            if not self._over:
                socket.transport.abort()  # no closing handshake: the client is just gone

    async def _sse(self, patience: int) -> None:
        parts = urlsplit(self._api.url)
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        try:
            last = f"Last-Event-ID: {self.seen[-1]}\r\n" if self.seen else ""
            writer.write(f"GET {self._path}/events HTTP/1.1\r\nHost: localhost\r\n{last}\r\n".encode())
            status = (await reader.readline()).split()[1]
            self.refused += status == b"503"
            assert status in (b"200", b"503"), status
            left = patience if status == b"200" else 0
            while left and not self._over:
                line = await reader.readline()
                if not line:  # the server could not read the history just now
                    self.refused += 1
                    break
                if line.startswith(b"data: "):  # chunk sizes and other lines are of no interest here
                    self._take(json.loads(line[6:]))
                    left -= 1
        finally:
            writer.transport.abort()


def write_all(worker: Worker, started: threading.Event) -> None:
    claim = worker.claim()
    started.wait(120)
    for first in range(0, EVENTS, 5):
        drafts = [EventDraft(type="log", data={"message": str(n)}) for n in range(first, first + 5)]
        worker.queue.report(claim.lease, drafts)
        started.wait(0)
        threading.Event().wait(0.02)  # so that the clients come and go while it is written
    worker.finish(claim)


async def test_200_clients_see_every_event_once_in_order(api: Api, worker: Worker) -> None:
    """SSE and WebSocket clients that drop and reconnect at random miss nothing and see nothing twice."""
    task = api.submit()["id"]
    going = threading.Event()
    writer = threading.Thread(target=write_all, args=(worker, going))
    writer.start()
    clients = [Client(api, task, seed) for seed in range(CLIENTS)]
    going.set()
    await asyncio.wait_for(asyncio.gather(*(client.run() for client in clients)), 240)
    writer.join(60)
    expected = [event["id"] for event in await asyncio.to_thread(read_events, api.url, task)]
    assert len(expected) == EVENTS + 3
    for client in clients:
        assert client.seen == expected
        assert client.resets == 0
    connections = sum(client.connections for client in clients)
    print(f"{connections} connections, {sum(client.refused for client in clients)} refused for now")
    assert connections > 2 * CLIENTS  # or the test would have shown nothing
    await wait_until_async(lambda: _closed(api), 30, "the reader to stop after the last client")


async def _closed(api: Api) -> bool:
    return not api.context.hub.feed(POOL).reading


@pytest.fixture
async def sources(valkey: Server) -> Any:
    """A hub of this test's own loop, whose subscribers may have 20 frames waiting."""
    store, events = RedisStore(valkey.url), RedisEvents(valkey.url)
    metrics = GatewayMetrics()
    hub = Broadcaster(events, metrics)
    yield Sources(
        hub=hub,
        store=store,
        events=events,
        numbers=PoolViewCache(store, wall_ms),
        now_ms=wall_ms,
        heartbeat_s=1.0,
        timeout_s=30.0,
        queue_limit=20,
    )
    await hub.close()
    await store.close()
    await events.close()


async def test_a_slow_subscriber_gets_a_reset_instead_of_memory(
    sources: Sources, start_worker: Callable[..., Worker]
) -> None:
    """One that does not read is cut to a snapshot and goes on from there; a quick one sees all."""
    worker = start_worker()
    task = TaskId(new_task_id(POOL))
    await sources.store.submit([NewTask(id=task, pool=POOL, tenant="default", input_json="{}")])
    claim = await asyncio.to_thread(worker.claim)
    async with Subscription(sources, task, POOL, after=None) as slow:
        quick = asyncio.create_task(_collect(sources, task))
        async with aclosing(slow.batches()) as batches:
            frames = _flat(batches)
            assert [(await anext(frames)).type for _ in range(2)] == ["queued", "started"]
            for n in range(100):
                await asyncio.to_thread(
                    worker.queue.report, claim.lease, [EventDraft(type="log", data={"message": str(n)})]
                )
            await wait_until_async(lambda: _behind(slow), 30, "the slow one to fall behind")
            reset = await anext(frames)
            assert reset.type == "reset"
            assert json.loads(reset.body)["data"]["task"]["state"] == "running"
            await asyncio.to_thread(
                worker.queue.report, claim.lease, [EventDraft(type="log", data={"message": "after"})]
            )
            after = await anext(frames)
            assert json.loads(after.body)["data"]["message"] == "after"
            await asyncio.to_thread(worker.finish, claim)
            rest = [frame.type async for frame in frames]
            assert rest == ["succeeded"]
    every = await asyncio.wait_for(quick, 60)
    assert [f.type for f in every] == ["queued", "started", *["log"] * 101, "succeeded"]


async def test_one_who_falls_behind_the_end_still_gets_the_last_event(
    sources: Sources, start_worker: Callable[..., Worker]
) -> None:
    """When the task ends while a subscriber is behind, it gets the snapshot and then the terminal event."""
    worker = start_worker()
    task = TaskId(new_task_id(POOL))
    await sources.store.submit([NewTask(id=task, pool=POOL, tenant="default", input_json="{}")])
    claim = await asyncio.to_thread(worker.claim)
    async with Subscription(sources, task, POOL, after=None) as slow, aclosing(slow.batches()) as batches:
        frames = _flat(batches)
        await anext(frames)
        drafts = [EventDraft(type="log", data={"message": "x"})] * 50
        await asyncio.to_thread(worker.queue.report, claim.lease, drafts)
        await asyncio.to_thread(worker.finish, claim)
        await wait_until_async(lambda: _behind(slow), 30, "it to fall behind")
        kinds = [frame.type async for frame in frames]
    assert kinds[-1] == "succeeded"
    assert kinds.count("succeeded") == 1


async def _behind(following: Subscription) -> bool:
    return following.behind


async def _flat(batches: AsyncIterator[list[Frame]]) -> AsyncIterator[Frame]:
    async for batch in batches:
        for frame in batch:
            yield frame


async def _collect(sources: Sources, task: TaskId) -> list[Frame]:
    async with Subscription(sources, task, POOL, after=None) as following:
        return [frame async for frame in _flat(following.batches())]


async def test_a_task_that_swallows_a_cancel_is_ended_all_the_same() -> None:
    """One cancel can be lost on the way (redis-py on Python 3.11 loses some); ending goes on until it is heard."""
    heard = 0

    async def deaf() -> None:
        nonlocal heard
        while heard < 2:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                heard += 1
        raise RuntimeError("at last")

    task = asyncio.create_task(deaf())
    await asyncio.sleep(0)
    await asyncio.wait_for(ended(task), 30)
    assert (task.done(), heard) == (True, 2)
