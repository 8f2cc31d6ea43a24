"""One manager at a time holds the lease on the placement, and only this manager changes the plan."""

from __future__ import annotations

from daybreak_server.adapters.redis.limits import WANTED_MAX
from daybreak_server.domain.placement import Placement
from daybreak_server.domain.policy import GRACE_MS
from daybreak_server.ports.registry import ModelWake, PlacementPlan
from testkit.registry_driver import RegistryDriver, plan_with


async def hold(driver: RegistryDriver, holder: str, priority: int = 0, ttl_s: float = 5) -> bool:
    return await driver.registry.hold_placement(holder, priority=priority, ttl_s=ttl_s)


async def manager(driver: RegistryDriver) -> str | None:
    return (await driver.registry.view()).manager


async def test_the_first_one_has_the_lease_as_long_as_it_renews_it(driver: RegistryDriver) -> None:
    assert await manager(driver) is None
    assert await hold(driver, "a")
    for _ in range(10):
        await driver.pass_time(3000)
        assert not await hold(driver, "b")
        assert await hold(driver, "a")
    assert await manager(driver) == "a"


async def test_another_one_takes_the_lease_when_it_ends(driver: RegistryDriver) -> None:
    await hold(driver, "a")
    await driver.pass_time(5000)
    assert await manager(driver) is None
    assert await hold(driver, "b")
    assert not await hold(driver, "a")


async def test_a_higher_priority_takes_the_lease_at_once_and_keeps_it(driver: RegistryDriver) -> None:
    await hold(driver, "gateway")
    assert await hold(driver, "ray", priority=1)
    assert not await hold(driver, "gateway")
    assert await manager(driver) == "ray"
    await driver.pass_time(5000)
    assert await hold(driver, "gateway")


async def test_an_outage_ends_no_lease_of_a_manager(driver: RegistryDriver) -> None:
    await hold(driver, "a")
    driver.now += 3_600_000
    await driver.registry.tick()
    assert not await hold(driver, "b")
    assert await hold(driver, "a")
    await driver.pass_time(GRACE_MS)
    assert await manager(driver) == "a"


async def test_a_released_lease_is_free_at_once(driver: RegistryDriver) -> None:
    await hold(driver, "a")
    await driver.registry.release_placement("b")
    assert await manager(driver) == "a"
    await driver.registry.release_placement("a")
    assert await manager(driver) is None
    assert await hold(driver, "b")


async def test_only_the_holder_changes_the_plan(driver: RegistryDriver) -> None:
    """A manager that was frozen wakes with an old plan, and must not publish it."""
    old, new = plan_with(("chat", "w1"), workers_wanted=1), plan_with(("chat", "w2"), workers_wanted=2)
    assert not await driver.registry.publish_plan("a", old)
    await hold(driver, "a")
    await driver.pass_time(5000)
    assert not await driver.registry.publish_plan("a", old)
    await hold(driver, "b")
    assert await driver.registry.publish_plan("b", new)
    version = await driver.version()
    assert not await driver.registry.publish_plan("a", old)
    view = await driver.registry.view()
    assert (view.plan, view.version, view.manager) == (new, version, "b")
    assert driver.client.zcard(driver.keys.single("wanted")) == 2


async def test_a_plan_is_kept_as_it_was_published(driver: RegistryDriver) -> None:
    placement = Placement(
        replicas=plan_with(("a", "w1"), ("a", "w2")).placement.replicas, unplaced={"b": "ü"}
    )
    plan = PlacementPlan(
        placement=placement,
        wanted={"a": 2, "b": 1},
        wakes={"a": ModelWake(last_s=2.5), "b": ModelWake(since_ms=driver.now, last_s=None)},
        workers_wanted=3,
    )
    await hold(driver, "a")
    assert await driver.registry.publish_plan("a", plan)
    assert (await driver.registry.view()).plan == plan


async def test_the_workers_wanted_are_what_keda_counts(driver: RegistryDriver) -> None:
    await hold(driver, "a", ttl_s=60)
    for wanted in (0, 3, 1, 2, 0, WANTED_MAX + 1):
        await driver.registry.publish_plan("a", PlacementPlan(workers_wanted=wanted))
        assert driver.client.zcard(driver.keys.single("wanted")) == min(wanted, WANTED_MAX)
