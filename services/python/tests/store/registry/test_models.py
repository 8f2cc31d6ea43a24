"""Models are registered once, marked as deleted, and removed."""

from __future__ import annotations

import json

from daybreak_server.adapters.redis.registry import codec
from daybreak_server.domain.models import ReplicaState
from daybreak_server.domain.placement import Replica
from daybreak_server.domain.spread import Spread, SpreadMove
from daybreak_server.ports.registry import ModelWake, PlacementPlan
from testkit.registry_driver import RegistryDriver, model, plan_with, report, worker


async def test_a_model_is_kept_as_it_was_registered(driver: RegistryDriver) -> None:
    added = model(
        "org/chat:7b",
        args={"max_model_len": 4096, "nested": {"a": [1, 2]}, "text": "ü"},
        replicas=3,
        min_replicas=1,
        fallback="small",
        target_load=2.5,
        created_ms=driver.now,
    )
    assert await driver.registry.add_model(added)
    assert (await driver.registry.view()).models == {"org/chat:7b": added}


async def test_an_alias_is_registered_once(driver: RegistryDriver) -> None:
    """A call that is repeated after a lost answer succeeds. A different record with the same alias is refused."""
    assert await driver.registry.add_model(model())
    version = await driver.version()
    assert await driver.registry.add_model(model())
    assert not await driver.registry.add_model(model(replicas=2))
    assert (await driver.registry.view()).models == {"chat": model()}
    assert await driver.version() == version


async def test_a_deleted_model_keeps_its_alias_until_it_is_removed(driver: RegistryDriver) -> None:
    await driver.registry.add_model(model())
    assert await driver.registry.mark_deleted("chat") == model(deleted=True)
    assert await driver.registry.mark_deleted("chat") == model(deleted=True)
    assert (await driver.registry.view()).models == {"chat": model(deleted=True)}
    assert not await driver.registry.add_model(model())
    await driver.registry.remove_model("chat")
    assert (await driver.registry.view()).models == {}
    assert await driver.registry.mark_deleted("chat") is None
    assert await driver.registry.add_model(model())


async def test_only_a_deleted_model_is_removed(driver: RegistryDriver) -> None:
    """A manager whose view is old must not remove a model that has been registered again since then."""
    await driver.registry.add_model(model())
    await driver.registry.remove_model("chat")
    await driver.registry.remove_model("unknown")
    assert list((await driver.registry.view()).models) == ["chat"]


async def test_records_of_a_newer_version_can_be_read(driver: RegistryDriver) -> None:
    """During an update, gateways of two versions read the same records."""
    await driver.registry.add_model(model())
    await driver.registry.add_worker(
        worker(replicas=[report("chat", reason="r")]), incarnation="i", lease_s=15
    )
    await driver.registry.hold_placement("m", priority=0, ttl_s=15)
    await driver.registry.publish_plan("m", plan_with(("chat", "w1")))
    before = await driver.registry.view()

    keys, client = driver.keys, driver.client
    stored = client.hget(keys.single("models"), "chat")
    client.hset(keys.single("models"), "chat", stored[:1] + newer(stored[1:]))
    worker_key = keys.of("worker", "w1")
    client.hset(worker_key, "fixed", newer(client.hget(worker_key, "fixed")))
    state = json.loads(client.hget(worker_key, "state"))
    state["replicas"][0]["since"] = 1
    client.hset(worker_key, "state", newer(json.dumps(state)))
    client.hset(worker_key, "newer", "1")
    plan = json.loads(client.get(keys.single("plan")))
    plan["replicas"][0].append("newer")
    client.set(keys.single("plan"), newer(json.dumps(plan)))

    after = await driver.registry.view()
    assert (after.models, after.workers, after.plan) == (before.models, before.workers, before.plan)


async def test_a_replica_in_a_state_of_a_newer_version_is_no_ready_one(driver: RegistryDriver) -> None:
    """Gateways send the replica nothing, and the manager still sees that the worker has the replica."""
    await driver.registry.add_worker(worker(replicas=[report("chat")]), incarnation="i", lease_s=15)
    key = driver.keys.of("worker", "w1")
    state = json.loads(driver.client.hget(key, "state"))
    state["replicas"][0]["state"] = "sleeping"
    driver.client.hset(key, "state", json.dumps(state))
    (found,) = (await driver.registry.view()).workers
    assert [(replica.alias, replica.state) for replica in found.replicas] == [("chat", ReplicaState.STARTING)]


def test_a_plan_with_more_about_a_wake_can_be_read() -> None:
    plan = PlacementPlan(
        wakes={"chat": ModelWake(since_ms=1, last_s=2.5)}, wanted={"chat": 1}, workers_wanted=1
    )
    data = json.loads(codec.plan_json(plan))
    data["wakes"]["chat"].append("newer")
    assert codec.plan_of(json.dumps(data)) == plan


def test_moves_of_replicas_are_kept_as_they_were_planned() -> None:
    new = Replica(alias="chat", worker="w2", devices=(0, 1))
    begun, possible = SpreadMove(since_ms=1, failures=2, replica=new), SpreadMove(since_ms=5)
    plan = PlacementPlan(spread=Spread(moves={"chat": begun, "other": possible}))
    assert codec.plan_of(codec.plan_json(plan)) == plan


def newer(record: bytes | str) -> bytes:
    """The record plus a field that this version does not know."""
    return json.dumps({**json.loads(record), "newer": {"x": 1}}).encode()
