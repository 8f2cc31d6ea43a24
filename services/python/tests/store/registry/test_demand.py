"""Gateways report how many requests they have for each model."""

from __future__ import annotations

import math

from daybreak_server.domain.models import Demand
from daybreak_server.domain.policy import GRACE_MS
from testkit.registry_driver import RegistryDriver, model


async def demand(driver: RegistryDriver, alias: str = "chat") -> Demand:
    return (await driver.registry.view()).demand.get(alias, Demand())


async def publish(driver: RegistryDriver, gateway: str = "g1", ttl_s: float = 5, **requests: int) -> None:
    await driver.registry.publish_demand(gateway, requests, ttl_s=ttl_s)


async def begin(driver: RegistryDriver) -> None:
    for alias in ("chat", "other"):
        await driver.registry.add_model(model(alias))


async def test_the_requests_of_all_gateways_are_added_up(driver: RegistryDriver) -> None:
    """A new report of a gateway replaces its earlier report."""
    await begin(driver)
    assert await demand(driver) == Demand(requests=0, idle_s=math.inf)
    await publish(driver, "g1", chat=3, other=1)
    await publish(driver, "g2", chat=4)
    assert (await demand(driver), await demand(driver, "other")) == (
        Demand(requests=7, idle_s=0),
        Demand(requests=1, idle_s=0),
    )
    await publish(driver, "g1", chat=1)
    assert (await demand(driver)).requests == 5
    assert (await demand(driver, "other")).requests == 0
    await publish(driver, "g2")
    await publish(driver, "g1", chat=0)
    assert (await demand(driver)).requests == 0
    assert driver.client.exists(driver.keys.single("demand")) == 0


async def test_aliases_may_have_any_form_of_a_hub(driver: RegistryDriver) -> None:
    alias = "org/Name-1.5_x:latest"
    await driver.registry.add_model(model(alias))
    await driver.registry.publish_demand("g\n1 2", {alias: 2, "a": 3}, ttl_s=5)
    assert (await demand(driver, alias)).requests == 2


async def test_a_model_is_idle_since_its_last_request(driver: RegistryDriver) -> None:
    await begin(driver)
    await publish(driver, chat=1, ttl_s=60)
    await driver.pass_time(10_000)
    assert await demand(driver) == Demand(requests=1, idle_s=0)
    await publish(driver)
    await driver.pass_time(3000)
    assert await demand(driver) == Demand(requests=0, idle_s=3)


async def test_a_gateway_that_dies_asks_for_nothing_once_its_lease_ends(driver: RegistryDriver) -> None:
    await begin(driver)
    await publish(driver, "dies", chat=8)
    for _ in range(6):
        await publish(driver, "lives", chat=1)
        await driver.pass_time(1000)
    assert (await demand(driver)).requests == 1


async def test_an_outage_ends_no_demand(driver: RegistryDriver) -> None:
    await begin(driver)
    await publish(driver, chat=8, ttl_s=2)
    driver.now += 3_600_000
    await driver.registry.tick()
    assert await demand(driver) == Demand(requests=8, idle_s=0)
    await driver.pass_time(GRACE_MS)
    assert (await demand(driver)).requests == 0


async def test_an_outage_makes_no_model_idle(driver: RegistryDriver) -> None:
    """During an outage, gateways answer requests but cannot report them. If the outage counted as idle time, all
    models would stop at its end, and clients would have to wait until the models start again."""
    await begin(driver)
    await publish(driver, chat=1)
    await publish(driver)
    await driver.pass_time(10_000)
    driver.now += 3_600_000
    await driver.registry.tick()
    assert (await demand(driver)).idle_s < 15


async def test_models_that_are_gone_leave_no_trace(driver: RegistryDriver) -> None:
    """If a name is registered again, the new model inherits no data of the old one."""
    await begin(driver)
    await publish(driver, chat=1, unknown=1)
    await publish(driver)
    await driver.registry.mark_deleted("chat")
    await driver.registry.remove_model("chat")
    await driver.registry.tick()
    await driver.registry.add_model(model())
    assert (await driver.registry.view()).demand == {}
    assert driver.client.exists(driver.keys.single("last_request")) == 0
