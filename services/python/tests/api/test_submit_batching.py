"""Batched submits give the same results as single ones, and the serializer writes the same JSON as the wire's types."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import httpx2
import pytest
from api_support import Api, FakeLeader

from daybreak.wire import Task
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.api import serializers
from daybreak_server.api.intake.submit_batching import MAX_BATCH, SubmitBatcher
from daybreak_server.domain.ids import new_task_id
from daybreak_server.domain.tasks import ArtifactRef, NewTask, Priority, State, TaskRecord
from daybreak_server.ports.store_errors import StoreError, StoreUnavailableError
from daybreak_server.ports.tasks import Submitted


def new(key: str | None = None, body: str = "a" * 64) -> NewTask:
    return NewTask(
        id=new_task_id("echo"),
        pool="echo",
        tenant="default",
        input_json="{}",
        idempotency_key=key,
        body_hash=body,
    )


class CountingStore:
    """A store that counts the tasks of each round trip, and can be slow or broken."""

    def __init__(self, store: RedisStore) -> None:
        self.store = store
        self.round_trips: list[int] = []
        self.unblocked = asyncio.Event()
        self.unblocked.set()
        self.broken = False

    async def submit(self, tasks: Sequence[NewTask]) -> list[Submitted | StoreError]:
        self.round_trips.append(len(tasks))
        await self.unblocked.wait()
        if self.broken:
            raise StoreUnavailableError("away")
        return await self.store.submit(tasks)


async def test_concurrent_submits_share_round_trips(valkey: Any) -> None:
    """300 concurrent submits take a few round trips of at most 64 tasks, and every caller gets its own task."""
    store = RedisStore(valkey.url)
    counting = CountingStore(store)
    submit_batcher = SubmitBatcher(counting)  # type: ignore[arg-type] # The batcher calls only submit.
    tasks = [new() for _ in range(300)]
    try:
        responses = await asyncio.gather(*(submit_batcher.submit(task) for task in tasks))
    finally:
        await store.close()
    assert [response.record.id for response in responses] == [task.id for task in tasks]
    assert sum(counting.round_trips) == 300
    assert max(counting.round_trips) <= MAX_BATCH
    assert len(counting.round_trips) <= 10


async def test_each_task_of_a_batch_is_accepted_or_refused_by_itself(valkey: Any) -> None:
    """The first submit with a key creates a task. A later submit with this key gets the same task if its body is
    the same. If its body differs, the later submit is refused."""
    store = RedisStore(valkey.url)
    submit_batcher = SubmitBatcher(store)
    try:
        first, repeat, other_body, without_key = await asyncio.gather(
            submit_batcher.submit(new("k")),
            submit_batcher.submit(new("k")),
            submit_batcher.submit(new("k", "b" * 64)),
            submit_batcher.submit(new()),
            return_exceptions=True,
        )
    finally:
        await store.close()
    assert isinstance(first, Submitted)
    assert isinstance(repeat, Submitted)
    assert repeat.repeated
    assert repeat.record.id == first.record.id
    assert isinstance(other_body, StoreError)
    assert isinstance(without_key, Submitted)
    assert not without_key.repeated


async def test_a_cancelled_caller_does_not_affect_the_others(valkey: Any) -> None:
    """A submit that is cancelled before it is sent is dropped.

    In an outage each caller gets an error object of its own.
    """
    store = RedisStore(valkey.url)
    counting = CountingStore(store)
    submit_batcher = SubmitBatcher(counting)  # type: ignore[arg-type]
    counting.unblocked.clear()
    try:
        in_flight = [asyncio.create_task(submit_batcher.submit(new())) for _ in range(2)]
        await asyncio.sleep(0.01)
        waiting = [asyncio.create_task(submit_batcher.submit(new())) for _ in range(130)]
        await asyncio.sleep(0.01)
        waiting[0].cancel()
        counting.unblocked.set()
        results = await asyncio.gather(*in_flight, *waiting, return_exceptions=True)
        assert isinstance(results[2], asyncio.CancelledError)
        assert sum(isinstance(response, Submitted) for response in results) == 131
        counting.broken = True
        failed = await asyncio.gather(
            *(submit_batcher.submit(new()) for _ in range(3)), return_exceptions=True
        )
    finally:
        await store.close()
    assert all(isinstance(error, StoreUnavailableError) for error in failed)
    assert len({id(error) for error in failed}) == 3


def test_the_fast_path_responds_like_the_route(api: Api) -> None:
    """A submit whose URL has a query string is accepted. A submit whose URL has a trailing slash gets a 404."""
    body = {"pool": "echo", "input": {"message": "hi"}, "metadata": {"a": "b"}}
    task = api.client.post("/v1/tasks?x=1", json=body).json()
    assert Task.model_validate(task).to_json() == task
    assert api.client.post("/v1/tasks/", json=body).status_code == 404
    response = api.client.put("/v1/tasks", json=body)
    assert response.status_code == 405
    assert set(response.headers["allow"].split(", ")) >= {"GET", "POST"}
    metrics = api.client.get("/metrics").text
    assert (
        'daybreak_http_requests_total{code="none",method="POST",route="/v1/tasks",status="202"} 1.0'
        in metrics
    )


async def test_a_mounted_app_reads_submits(api: Api) -> None:
    """Below a path prefix, a submit to an unknown pool gets the same error as without one."""
    transport = httpx2.ASGITransport(api.server.config.app, root_path="/behind")
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        response = await client.post("/behind/v1/tasks", json={"pool": "nowhere", "input": {}})
    assert response.status_code == 404
    assert response.json()["code"] == "no_such_pool"


RECORD = TaskRecord(
    id=new_task_id("echo"),
    pool="echo",
    tenant="default",
    state=State.QUEUED,
    priority=Priority.HIGH,
    input_json='{"a":null,"b":1.5}',
    metadata={"k": "v"},
    attempt=0,
    strikes=0,
    max_strikes=3,
    releases=0,
    created_ms=1763765000123,
    position=4,
    wait_s=1.26,
)
FILE = ArtifactRef(name="x.txt", key="k", content_type="text/plain", size_bytes=3, sha256="0" * 64)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"state": State.DELAYED, "start_at_ms": 1763765000999, "position": None},
        {"state": State.RUNNING, "phase": "denoise", "fraction": 0.5, "step": 5, "steps": 10, "eta_s": 2.04},
        {"state": State.RUNNING, "cancel_requested": True, "resumed_from_step": 3, "started_ms": 1},
        {"state": State.SUCCEEDED, "fraction": 0.9, "steps": 10, "artifacts": (FILE,), "gpu_seconds": 1.5},
        {"state": State.FAILED, "error_code": "boom", "error_message": "it broke", "error_attempt": 2},
        {"state": State.CANCELLED, "finished_ms": 1763765000000, "expires_ms": 2763765000000},
        {"state": State.EXPIRED, "replay_of": RECORD.id, "wasted_gpu_seconds": 0.25},
    ],
    ids=lambda changes: str(changes.get("state", "queued")),
)
def test_the_json_of_a_task_matches_its_wire_type(changes: dict[str, Any]) -> None:
    """The serializer writes the same fields, in the same order and format, as :class:`daybreak.wire.Task`."""
    shown = serializers.task(replace(RECORD, **changes), None, 1763765000000)
    task = Task.model_validate(shown)
    assert task.to_json() == shown
    assert list(task.to_json()) == list(shown)


def test_a_time_is_written_to_the_millisecond() -> None:
    """The milliseconds always have three digits: at whole seconds, below 100 ms, and at the epoch."""
    assert serializers.iso8601(1763765000000) == "2025-11-21T22:43:20.000Z"
    assert serializers.iso8601(1763765000007) == "2025-11-21T22:43:20.007Z"
    assert serializers.iso8601(0) == "1970-01-01T00:00:00.000Z"


def test_a_running_task_is_shown_the_same_by_all_routes(
    api: Api, start_leader: Callable[..., FakeLeader]
) -> None:
    """The route of one task and the route of the list return the same JSON, which matches the wire's type."""
    leader = start_leader()
    task = api.submit()
    claim = leader.claim()
    leader.progress(claim, 1, 4)
    shown = api.get(task["id"])
    assert Task.model_validate(shown).to_json() == shown
    listed = api.client.get("/v1/tasks").json()["data"]
    assert [item["id"] for item in listed] == [task["id"]]
    assert listed[0] == shown
    leader.finish(claim)
