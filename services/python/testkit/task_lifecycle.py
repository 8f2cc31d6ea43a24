"""Runs one task through all parts of the store."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from dataclasses import asdict

from daybreak_server.adapters.redis.endpoint import Endpoint
from daybreak_server.adapters.redis.events import RedisEvents
from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.domain.ids import GroupId, new_task_id
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.tasks import Finished, NewTask, State


async def run_task_lifecycle(endpoint: Endpoint) -> State:
    """Submit, claim, settle and read a task. The queue's endpoint is built from JSON, like that of a watchdog."""
    task = NewTask(id=new_task_id("echo"), pool="echo", tenant="t", input_json="{}")
    group = GroupRecord(id=GroupId("g-1"), state=GroupState.IDLE)
    store, events = RedisStore(endpoint), RedisEvents(endpoint)
    queue = RedisQueue(Endpoint.of(json.loads(json.dumps(asdict(endpoint)))), pool="echo")
    try:
        after = await events.tail("echo")
        await store.submit([task])
        claim = await asyncio.to_thread(queue.claim, group, wait_s=5)
        assert claim is not None
        await asyncio.to_thread(queue.settle, claim.lease, Finished(artifacts=()))
        async with aclosing(events.follow("echo", after=after)) as feed:
            assert [event.type for event in await anext(feed)] == ["queued", "started", "succeeded"]
        record = await store.get(task.id)
        assert record is not None
        return record.state
    finally:
        queue.close()
        await events.close()
        await store.close()
