"""A subscription joins history and live events without a gap or a repeat, no matter when events are written."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from typing import Any, cast

import pytest
from api_support import POOL, FakeLeader

from daybreak_server.adapters.redis.events import RedisEvents
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.api.intake.catalog import PoolViewCache
from daybreak_server.api.services import wall_ms
from daybreak_server.api.streaming import frames
from daybreak_server.api.streaming.broadcaster import Broadcaster
from daybreak_server.api.streaming.frames import Frame
from daybreak_server.api.streaming.subscription import Sources, Subscription
from daybreak_server.domain.ids import TaskId, new_task_id
from daybreak_server.domain.tasks import Claim, EventDraft, NewTask
from daybreak_server.observability.gateway_metrics import GatewayMetrics
from daybreak_server.ports.events import EventPage
from testkit.valkey import Server


class HookedEvents(RedisEvents):
    """The event log, with hooks that run right before and right after history is read."""

    before: Callable[[], None] | None = None
    after: Callable[[], None] | None = None
    slow_s = 0.0
    """``tail`` waits at most this long for history to be read."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._was_read = asyncio.Event()

    async def tail(self, pool: str) -> str:
        with suppress(TimeoutError):
            async with asyncio.timeout(self.slow_s):
                await self._was_read.wait()
        return await super().tail(pool)

    async def read(self, task: TaskId, *, after: str | None = None, limit: int = 1000) -> EventPage:
        first, second = self.before, self.after
        self.before = self.after = None
        if first is not None:
            await asyncio.to_thread(first)
        page = await super().read(task, after=after, limit=limit)
        if second is not None:
            await asyncio.to_thread(second)
        self._was_read.set()
        return page


@pytest.fixture
async def sources(valkey: Server) -> AsyncIterator[Sources]:
    """The sources of a gateway, with hooks in its event log."""
    store, events, metrics = RedisStore(valkey.url), HookedEvents(valkey.url), GatewayMetrics()
    broadcaster = Broadcaster(events, metrics)
    yield Sources(
        broadcaster=broadcaster,
        store=store,
        events=events,
        pool_views=PoolViewCache(store, wall_ms),
        now_ms=wall_ms,
        heartbeat_s=1.0,
        timeout_s=30.0,
    )
    await broadcaster.close()
    await store.close()
    await events.close()


async def _start_task(sources: Sources, leader: FakeLeader) -> Claim:
    task = TaskId(new_task_id(POOL))
    await sources.store.submit([NewTask(id=task, pool=POOL, tenant="default", input_json="{}")])
    return await asyncio.to_thread(leader.claim)


def _write_logs(leader: FakeLeader, claim: Claim, *words: str) -> None:
    leader.queue.report(claim.lease, [EventDraft(type="log", data={"message": word}) for word in words])


async def _receive_all(
    sources: Sources,
    task: TaskId,
    after: Any = None,
    *,
    actions: Mapping[int, Callable[[], object]] | None = None,
) -> list[str]:
    """The ids of all events that a subscriber receives. ``actions``: number of logs received → what to do then."""
    received: list[Frame] = []
    pending = dict(actions or {})
    async with (
        Subscription(sources, task, POOL, after=after) as subscription,
        aclosing(subscription.batches()) as batches,
    ):
        async for batch in batches:
            received += [frame for frame in batch if frame.key is not None]
            logs = len({frame.key for frame in received if frame.type == "log"})
            for due in [count for count in pending if count <= logs]:
                await asyncio.to_thread(pending.pop(due))
    return [frames.format_id(frame.key) for frame in received if frame.key is not None]


@pytest.mark.parametrize("when", ["before", "after"])
async def test_events_written_while_history_is_read_arrive_once(
    sources: Sources, start_leader: Callable[..., FakeLeader], when: str
) -> None:
    """Such events are in the history, in the live feed or in both, and the subscriber gets each of them once."""
    leader = start_leader()
    claim = await _start_task(sources, leader)
    await asyncio.to_thread(_write_logs, leader, claim, "one", "two")

    setattr(sources.events, when, lambda: _write_logs(leader, claim, "three", "four"))
    actions = {4: lambda: _write_logs(leader, claim, "five"), 5: lambda: leader.finish(claim)}
    received = await asyncio.wait_for(_receive_all(sources, claim.lease.task, actions=actions), 60)
    all_events = (await sources.events.read(claim.lease.task)).events
    assert received == [event.id for event in all_events]
    assert len(received) == len(set(received)) == 8


async def test_no_history_is_read_before_the_feed_is_live(
    sources: Sources, start_leader: Callable[..., FakeLeader]
) -> None:
    """A subscriber misses no event, even if ``tail`` takes long to say where the feed begins."""
    leader = start_leader()
    claim = await _start_task(sources, leader)
    await asyncio.to_thread(_write_logs, leader, claim, "one")
    log = cast("HookedEvents", sources.events)
    log.slow_s, log.after = 0.5, lambda: _write_logs(leader, claim, "two")
    actions = {1: lambda: _write_logs(leader, claim, "three"), 2: lambda: leader.finish(claim)}
    received = await asyncio.wait_for(_receive_all(sources, claim.lease.task, actions=actions), 60)
    assert received == [event.id for event in (await sources.events.read(claim.lease.task)).events]


async def test_a_resumed_subscription_gets_exactly_the_later_events(
    sources: Sources, start_leader: Callable[..., FakeLeader]
) -> None:
    """A subscription may resume after any event. The gateway may read the later events from its cache or the store."""
    leader = start_leader()
    claim = await _start_task(sources, leader)
    task = claim.lease.task
    async with Subscription(sources, task, POOL, after=None) as other, aclosing(other.batches()) as batches:
        await anext(batches)  # From now on the gateway caches the task's events.
        await asyncio.to_thread(_write_logs, leader, claim, "one", "two", "three")
        logs_seen = 0
        while logs_seen < 3:
            logs_seen += sum(frame.type == "log" for frame in await anext(batches))
        await asyncio.to_thread(leader.finish, claim)
        event_ids = [event.id for event in (await sources.events.read(task)).events]
        for index, event_id in enumerate(event_ids):
            received = await asyncio.wait_for(_receive_all(sources, task, frames.parse_id(event_id)), 60)
            assert received == event_ids[index + 1 :]


async def test_a_lossless_subscriber_that_was_too_slow_gets_the_events_that_it_missed(
    sources: Sources, leader: FakeLeader
) -> None:
    """The subscriber gets the missed events from the store. It does not get a ``reset`` instead of them."""
    claim = await _start_task(sources, leader)
    words = [f"word {number}" for number in range(20)]
    small = replace(sources, queue_limit=2)
    received: list[Frame] = []
    async with (
        Subscription(small, claim.lease.task, POOL, after=None, lossless=True) as subscription,
        aclosing(subscription.batches()) as batches,
    ):
        received += await anext(batches)
        for word in words:
            await asyncio.to_thread(_write_logs, leader, claim, word)
        while not subscription.lagging:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(leader.finish, claim)
        async for batch in batches:
            received += batch
    assert [frame.type for frame in received] == ["queued", "started", *(["log"] * 20), "succeeded"]
