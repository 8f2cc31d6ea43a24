"""A manager plans while it holds the lease. When its lease ends, another manager continues its work."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from daybreak_server.adapters.redis.registry.store import RedisRegistry
from daybreak_server.domain.models import ReplicaState
from daybreak_server.domain.spread import SPREAD_AFTER_MS
from daybreak_server.model_placement import manager as manager_module
from daybreak_server.model_placement.manager import TTL_S, Manager
from daybreak_server.ports.registry import PlacementPlan, Registry, RegistryView
from daybreak_server.ports.store_errors import StoreError
from testkit.memory_registry import MemoryRegistry
from testkit.registry_driver import RegistryDriver, model, plan_with, report, worker
from testkit.valkey import Server, start_valkey
from testkit.waiting import wait_until_async


@pytest_asyncio.fixture
async def driver(valkey: Server) -> AsyncIterator[RegistryDriver]:
    driver = RegistryDriver(valkey.url)
    await driver.registry.tick()
    yield driver
    await driver.close()


@pytest.fixture
def own_server(tmp_path: Path) -> Iterator[Server]:
    """A server that the test may stop."""
    server = start_valkey(tmp_path / "server")
    yield server
    server.stop()


@asynccontextmanager
async def running(manager: Manager) -> AsyncIterator[None]:
    task = asyncio.create_task(manager.run())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def view(driver: RegistryDriver) -> RegistryView:
    return await driver.registry.view()


async def wait_wanted(registry: Registry, **wanted: int) -> None:
    async def planned() -> bool:
        with suppress(StoreError):
            return dict((await registry.view()).plan.wanted) == wanted
        return False

    await wait_until_async(planned, 60, f"the plan to want {wanted}")


async def test_a_plan_that_has_not_changed_is_not_published_again(driver: RegistryDriver) -> None:
    manager = Manager(driver.registry, holder="a")
    await driver.registry.add_model(model(min_replicas=1))
    await driver.registry.add_worker(worker(), incarnation="i", lease_s=60)
    await manager.round()
    seen = await view(driver)
    assert (seen.plan.placement, seen.manager) == (plan_with(("chat", "w1")).placement, "a")
    assert seen.plan.workers_wanted == 1
    for _ in range(3):
        await driver.pass_time(1000)
        await manager.round()
    assert await driver.version() == seen.version
    shown = manager.health()
    assert shown.pop("last_round_s") >= 0
    assert shown == {
        "holder": "a",
        "leads": True,
        "manager": "a",
        "version": seen.version,
        "models": 1,
        "workers": 1,
        "ready_replicas": 0,
    }


async def test_another_manager_continues_when_the_lease_of_the_first_ends(driver: RegistryDriver) -> None:
    """Like a manager that was killed, the first manager does not give its lease back."""
    first, second = Manager(driver.registry, holder="a"), Manager(driver.registry, holder="b")
    await driver.registry.add_model(model(min_replicas=1))
    await first.round()
    before = await view(driver)
    await second.round()
    assert (await view(driver), second.health()["leads"]) == (before, False)
    await driver.registry.add_model(model("other", min_replicas=1))
    await second.round()
    assert dict((await view(driver)).plan.wanted) == {"chat": 1}
    await driver.pass_time(5000)
    await second.round()
    seen = await view(driver)
    assert (seen.manager, dict(seen.plan.wanted)) == ("b", {"chat": 1, "other": 1})
    assert seen.plan.wakes["chat"] == before.plan.wakes["chat"]


async def test_a_worker_that_returns_takes_over_a_replica_from_one_that_has_two(
    driver: RegistryDriver,
) -> None:
    """Another manager finishes the move that the first manager began."""
    registry = driver.registry

    async def report_ready(id: str, replicas: int) -> int:
        """Send the heartbeat of a worker whose replicas are ready. Returns how many replicas the worker should run."""
        ready = worker(id, replicas=[report()] * replicas)
        return len(await registry.renew_worker(ready, incarnation="i", lease_s=600))

    first, second = Manager(registry, holder="a"), Manager(registry, holder="b")
    await registry.add_model(model(replicas=2, min_replicas=2))
    await registry.add_worker(worker("w1"), incarnation="i", lease_s=600)
    await first.round()
    assert await report_ready("w1", 0) == 2
    await report_ready("w1", 2)
    await registry.add_worker(worker("w2"), incarnation="i", lease_s=600)
    await first.round()
    assert await report_ready("w2", 0) == 0
    await driver.pass_time(SPREAD_AFTER_MS)
    await first.round()
    assert (await report_ready("w1", 2), await report_ready("w2", 0)) == (2, 1)
    await driver.pass_time(5000)  # the lease of the first manager ends
    await second.round()
    assert second.health()["leads"]
    assert await report_ready("w1", 2) == 2, "a replica left before the new one was ready"
    await report_ready("w2", 1)
    await second.round()
    assert (await report_ready("w1", 2), await report_ready("w2", 1)) == (1, 1)


async def test_the_manager_on_ray_leads_whenever_it_lives(driver: RegistryDriver) -> None:
    gateway, ray = Manager(driver.registry, holder="g"), Manager(driver.registry, holder="ray", priority=1)
    await gateway.round()
    await ray.round()
    await gateway.round()
    assert ((await view(driver)).manager, gateway.health()["leads"]) == ("ray", False)
    await driver.pass_time(5000)
    await gateway.round()
    assert (await view(driver)).manager == "g"
    await ray.round()
    await gateway.round()
    assert ((await view(driver)).manager, gateway.health()["leads"]) == ("ray", False)


async def test_a_manager_that_ends_gives_the_lease_back(driver: RegistryDriver) -> None:
    """The store's clock stands still, so the lease cannot expire."""
    async with running(Manager(driver.registry, holder="a")):
        await wait_until_async(lambda: has_manager(driver, "a"), 60, "a manager")
    assert (await view(driver)).manager is None


async def has_manager(driver: RegistryDriver, holder: str) -> bool:
    return (await view(driver)).manager == holder


async def test_demand_is_planned_at_once(driver: RegistryDriver, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manager does not wait until its next round is due, because a client waits for the replica."""
    monkeypatch.setattr(manager_module, "EVERY_S", 600.0)
    await driver.registry.add_model(model(replicas=2, target_load=1))
    async with running(Manager(driver.registry, holder="a")):
        await driver.wait_blocked()
        async with asyncio.timeout(60):
            await driver.registry.publish_demand("g", {"chat": 2}, ttl_s=5)
            await wait_wanted(driver.registry, chat=2)


async def test_a_deleted_model_drains_and_is_removed(driver: RegistryDriver) -> None:
    manager, registry = Manager(driver.registry, holder="a"), driver.registry
    await registry.add_model(model(min_replicas=1))
    await registry.add_worker(worker(), incarnation="i", lease_s=60)
    await manager.round()
    runs = await registry.renew_worker(worker(replicas=[report()]), incarnation="i", lease_s=60)
    assert [replica.alias for replica in runs] == ["chat"]
    await registry.mark_deleted("chat")
    await manager.round()
    draining = worker(replicas=[report(state=ReplicaState.DRAINING)])
    assert await registry.renew_worker(draining, incarnation="i", lease_s=60) == ()
    await manager.round()
    assert list((await view(driver)).models) == ["chat"]
    await registry.renew_worker(worker(), incarnation="i", lease_s=60)
    await manager.round()
    assert (await view(driver)).models == {}
    await manager.round()
    assert (await view(driver)).plan == PlacementPlan()


class Observed:
    """A registry that counts the failed calls of ``hold_placement``."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.failures = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.registry, name)

    async def hold_placement(self, *args: Any, **options: Any) -> bool:
        try:
            return await self.registry.hold_placement(*args, **options)
        except StoreError:
            self.failures += 1
            raise


async def test_a_manager_outlives_the_store(
    own_server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manager logs one warning, however long the outage lasts."""
    monkeypatch.setattr(manager_module, "_MAX_BACKOFF_S", 0.1)
    registry = RedisRegistry(own_server.url, timeout_s=2)
    observed = Observed(registry)
    try:
        await registry.add_model(model(min_replicas=1))
        async with running(Manager(observed, holder="a")):  # type: ignore[arg-type]  # Observed delegates
            await wait_wanted(registry, chat=1)
            with caplog.at_level(logging.WARNING, logger="daybreak.manager"):
                await asyncio.to_thread(own_server.stop)
                await wait_until_async(lambda: failed(observed, 3), 60, "three failures")
                await asyncio.to_thread(own_server.start)
                await wait_until_async(lambda: added(registry, "other"), 60, "the store")
                await wait_wanted(registry, chat=1, other=1)
    finally:
        await registry.close()
    warnings = [record.getMessage() for record in caplog.records if "cannot reach" in record.getMessage()]
    assert len(warnings) == 1


async def failed(observed: Observed, times: int) -> bool:
    return observed.failures >= times


async def added(registry: Registry, alias: str) -> bool:
    with suppress(StoreError):
        return await registry.add_model(model(alias, min_replicas=1))
    return False


async def test_a_manager_that_cannot_plan_gives_its_lease_back() -> None:
    """Another manager may then take the lease and try to plan. Until a manager can plan, the metrics show that nobody
    plans."""
    registry = MemoryRegistry()
    assert await registry.add_model(model("bad", target_load=0.0, min_replicas=1))
    manager = Manager(registry, holder="a")
    with pytest.raises(ZeroDivisionError):
        await manager.round()
    assert (await registry.view()).manager == "a"
    async with running(manager), asyncio.timeout(TTL_S / 2):  # before the lease would end by itself
        while (await registry.view()).manager is not None:
            await asyncio.sleep(0.01)


async def test_an_error_of_a_round_does_not_end_the_manager(
    driver: RegistryDriver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manager_module, "_MAX_BACKOFF_S", 0.01)
    errors = iter([ZeroDivisionError("a bug")])
    plan = manager_module.plan

    def plan_or_fail(seen: RegistryView) -> PlacementPlan:
        for error in errors:
            raise error
        return plan(seen)

    monkeypatch.setattr(manager_module, "plan", plan_or_fail)
    await driver.registry.add_model(model(min_replicas=1))
    async with running(Manager(driver.registry, holder="a")):
        await wait_wanted(driver.registry, chat=1)
    assert "a bug" in caplog.text
