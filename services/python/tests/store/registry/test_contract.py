"""What both registries must do: the one on Redis, and the one in memory that other tests use."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from daybreak_server.adapters.redis.registry.store import RedisRegistry
from daybreak_server.domain.models import ModelRecord, ReplicaReport, ReplicaState, WorkerRecord
from daybreak_server.domain.placement import Placement, Replica
from daybreak_server.ports.registry import (
    ModelWake,
    PlacementPlan,
    Registry,
    UnknownWorkerError,
    WorkerTakenError,
)
from testkit.memory_registry import MemoryRegistry
from testkit.valkey import Server

MODEL = ModelRecord(
    alias="small", source="org/small", engine="test", args={"a": [1, None, "x"]}, created_ms=7
)
WORKER = WorkerRecord(
    id="w1", url="http://10.0.0.7:7000", engines=frozenset({"test"}), devices={0: 100}, version="1"
)
REPLICA = Replica(alias="small", worker="w1", devices=(0,))


@pytest.fixture(params=["memory", "redis"])
async def registry(request: pytest.FixtureRequest) -> AsyncIterator[Registry]:
    if request.param == "memory":
        yield MemoryRegistry()
        return
    server: Server = request.getfixturevalue("valkey")
    store = RedisRegistry(server.url)
    yield store
    await store.close()


async def test_a_model_is_registered_once_under_its_alias(registry: Registry) -> None:
    assert await registry.add_model(MODEL)
    assert await registry.add_model(MODEL)  # as if the first answer was lost
    assert not await registry.add_model(replace(MODEL, created_ms=8))
    assert (await registry.view()).models == {"small": MODEL}


async def test_a_deleted_model_stays_until_it_is_removed(registry: Registry) -> None:
    await registry.add_model(MODEL)
    await registry.remove_model("small")  # the model is not marked as deleted, so this changes nothing
    assert await registry.mark_deleted("small") == replace(MODEL, deleted=True)
    assert (await registry.view()).models["small"].deleted
    assert not await registry.add_model(replace(MODEL, created_ms=8))
    await registry.remove_model("small")
    assert (await registry.view()).models == {}
    assert await registry.mark_deleted("small") is None


async def test_a_worker_keeps_its_url_and_engines_and_gets_its_replicas(registry: Registry) -> None:
    await registry.add_worker(WORKER, incarnation="a", lease_s=10)
    report = ReplicaReport(
        alias="small", state=ReplicaState.READY, devices=(0,), capacity=4, last_lines=("x",)
    )
    heartbeat = replace(WORKER, url="", engines=frozenset(), version="", replicas=(report,), devices={0: 90})
    assert await registry.renew_worker(heartbeat, incarnation="a", lease_s=10) == ()
    (worker,) = (await registry.view()).workers
    assert worker == replace(WORKER, replicas=(report,), devices={0: 90})
    assert await registry.hold_placement("m", priority=0, ttl_s=10)
    other = replace(REPLICA, worker="w2")
    assert await registry.publish_plan("m", PlacementPlan(placement=Placement(replicas=(REPLICA, other))))
    assert await registry.renew_worker(heartbeat, incarnation="a", lease_s=10) == (REPLICA,)


async def test_a_second_worker_of_the_same_id_is_refused_unless_it_is_in_the_same_place(
    registry: Registry,
) -> None:
    await registry.add_worker(WORKER, incarnation="a", lease_s=10)
    with pytest.raises(WorkerTakenError, match=r"http://10\.0\.0\.7:7000"):
        await registry.add_worker(replace(WORKER, url="http://10.0.0.8:7000"), incarnation="b", lease_s=10)
    await registry.add_worker(WORKER, incarnation="c", lease_s=10)
    with pytest.raises(WorkerTakenError):
        await registry.renew_worker(WORKER, incarnation="a", lease_s=10)
    assert not await registry.remove_worker("w1", incarnation="a")
    assert await registry.remove_worker("w1", incarnation="c")
    with pytest.raises(UnknownWorkerError):
        await registry.renew_worker(WORKER, incarnation="c", lease_s=10)


async def test_a_worker_without_heartbeats_is_gone_when_its_lease_ends(registry: Registry) -> None:
    await registry.tick()
    await registry.add_worker(WORKER, incarnation="a", lease_s=0.05)
    async with asyncio.timeout(30):
        while (await registry.tick()).workers:
            await asyncio.sleep(0.02)
    with pytest.raises(UnknownWorkerError):
        await registry.renew_worker(WORKER, incarnation="a", lease_s=10)


async def test_demand_is_the_sum_over_gateways(registry: Registry) -> None:
    await registry.add_model(MODEL)
    assert (await registry.view()).demand == {}
    await registry.publish_demand("g1", {"small": 2}, ttl_s=10)
    await registry.publish_demand("g2", {"small": 3}, ttl_s=10)
    assert (await registry.view()).demand["small"].requests == 5
    await registry.publish_demand("g1", {}, ttl_s=10)
    await registry.publish_demand("g2", {"small": 1}, ttl_s=10)
    demand = (await registry.view()).demand["small"]
    assert (demand.requests, demand.idle_s) == (1, 0)
    await registry.publish_demand("g2", {}, ttl_s=10)
    demand = (await registry.view()).demand["small"]
    assert demand.requests == 0
    assert 0 <= demand.idle_s < 30


async def test_the_higher_priority_takes_the_placement(registry: Registry) -> None:
    assert await registry.hold_placement("gateway", priority=0, ttl_s=10)
    assert not await registry.hold_placement("other", priority=0, ttl_s=10)
    assert await registry.hold_placement("manager", priority=1, ttl_s=10)
    assert not await registry.hold_placement("gateway", priority=0, ttl_s=10)
    plan = PlacementPlan(
        placement=Placement(replicas=(REPLICA,), unplaced={"big": "No room."}),
        wanted={"small": 1, "big": 1},
        wakes={"big": ModelWake(since_ms=5, last_s=1.5)},
        workers_wanted=2,
    )
    assert not await registry.publish_plan("gateway", plan)
    assert await registry.publish_plan("manager", plan)
    view = await registry.view()
    assert (view.plan, view.manager) == (plan, "manager")
    await registry.release_placement("gateway")
    assert (await registry.view()).manager == "manager"
    await registry.release_placement("manager")
    assert (await registry.view()).manager is None


async def test_waiting_ends_with_a_change_and_loads_are_none(registry: Registry) -> None:
    report = ReplicaReport(alias="small", state=ReplicaState.READY, capacity=4)
    await registry.add_worker(WORKER, incarnation="a", lease_s=10)
    await registry.renew_worker(replace(WORKER, replicas=(report,)), incarnation="a", lease_s=10)
    before = (await registry.view()).version
    busy = replace(WORKER, replicas=(replace(report, requests=3),), memory_free_bytes=5)
    await registry.renew_worker(busy, incarnation="a", lease_s=10)
    assert (await registry.view()).version == before
    assert await registry.wait(after=before, timeout_s=0.05) == before
    waiting = asyncio.create_task(registry.wait(after=before, timeout_s=30))
    await registry.add_model(MODEL)
    assert await waiting == before + 1 == (await registry.view()).version
