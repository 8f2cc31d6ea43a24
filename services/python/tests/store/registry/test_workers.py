"""Workers hold leases; each id has one worker at a time."""

from __future__ import annotations

import pytest

from daybreak_server.adapters.redis.limits import WORKERS_LOST_MAX
from daybreak_server.domain.models import Gpu, ReplicaState
from daybreak_server.domain.placement import HOST, Replica
from daybreak_server.domain.policy import GRACE_MS, LEASE_STEP_MS
from daybreak_server.ports.registry import UnknownWorkerError, WorkerTakenError
from testkit.registry_driver import RegistryDriver, plan_with, report, worker

LEASE_S = 15.0


async def register(
    driver: RegistryDriver, id: str = "w1", incarnation: str = "first", **fields: object
) -> None:
    await driver.registry.add_worker(worker(id, **fields), incarnation=incarnation, lease_s=LEASE_S)


async def renew(
    driver: RegistryDriver, id: str = "w1", incarnation: str = "first", **fields: object
) -> tuple[Replica, ...]:
    return await driver.registry.renew_worker(worker(id, **fields), incarnation=incarnation, lease_s=LEASE_S)


# ── registration ──────────────────────────────────────────────────────────────────────────────────────────


async def test_a_worker_is_kept_as_it_registered_and_reported(driver: RegistryDriver) -> None:
    reported = worker(
        devices={0: 80, 1: 24},
        gpus=(Gpu(index=0, name="H100", memory_bytes=80, memory_free_bytes=70),),
        version="1.2",
        memory_bytes=512,
        memory_free_bytes=256,
        draining=True,
        replicas=[
            report("a", ReplicaState.FAILED, devices=(0, 1), reason="no", last_lines=("x", "ü"), capacity=4),
            report("b", devices=(1,), requests=3),
        ],
    )
    await driver.registry.add_worker(reported, incarnation="first", lease_s=LEASE_S)
    assert (await driver.registry.view()).workers == (reported,)
    await driver.registry.renew_worker(reported, incarnation="first", lease_s=LEASE_S)
    assert (await driver.registry.view()).workers == (reported,)


async def test_an_id_that_another_worker_has_is_refused_with_the_reason(driver: RegistryDriver) -> None:
    await register(driver, url="http://here:1")
    with pytest.raises(WorkerTakenError, match=r"w1 is alive at http://here:1.*--worker-id"):
        await register(driver, incarnation="second", url="http://there:1")
    (present,) = (await driver.registry.view()).workers
    assert present.url == "http://here:1"
    assert await renew(driver) == ()


async def test_a_restarted_worker_replaces_itself(driver: RegistryDriver) -> None:
    """The new process has the URL of the old one, so it replaces the old one. If the old process still lives, its
    heartbeats are refused."""
    await register(driver, replicas=[report()])
    await register(driver, incarnation="second")
    (present,) = (await driver.registry.view()).workers
    assert present.replicas == ()
    assert await renew(driver, incarnation="second") == ()
    with pytest.raises(WorkerTakenError):
        await renew(driver, replicas=[report()])
    (present,) = (await driver.registry.view()).workers
    assert present.replicas == ()


async def test_an_id_is_free_once_the_lease_has_ended(driver: RegistryDriver) -> None:
    await register(driver)
    await driver.pass_time(14_000)
    with pytest.raises(WorkerTakenError):
        await register(driver, incarnation="second", url="http://there:1")
    await driver.pass_time(1000)
    await register(driver, incarnation="second", url="http://there:1")
    (present,) = (await driver.registry.view()).workers
    assert present.url == "http://there:1"


async def test_a_registration_may_be_repeated(driver: RegistryDriver) -> None:
    """The same process may also register again with another URL."""
    await register(driver)
    await register(driver)
    await register(driver, url="http://public:1")
    (present,) = (await driver.registry.view()).workers
    assert present.url == "http://public:1"


# ── heartbeats ────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_heartbeat_changes_neither_the_url_nor_the_engines(driver: RegistryDriver) -> None:
    """The gateway checks the sender of a registration more strictly than the sender of a heartbeat."""
    await register(driver, url="http://here:1")
    await renew(driver, url="http://elsewhere:1", engines=frozenset({"other"}), draining=True)
    (present,) = (await driver.registry.view()).workers
    assert (present.url, present.engines, present.draining) == ("http://here:1", frozenset({"e"}), True)


async def test_a_heartbeat_returns_the_replicas_of_this_worker(driver: RegistryDriver) -> None:
    await register(driver)
    assert await renew(driver) == ()
    await driver.registry.hold_placement("m", priority=0, ttl_s=60)
    await driver.registry.publish_plan("m", plan_with(("a", "w1"), ("b", "w2"), ("c", "w1")))
    assert await renew(driver) == (
        Replica(alias="a", worker="w1", devices=(HOST,)),
        Replica(alias="c", worker="w1", devices=(HOST,)),
    )


async def test_an_unknown_worker_must_register(driver: RegistryDriver) -> None:
    with pytest.raises(UnknownWorkerError, match="w1"):
        await renew(driver)
    await register(driver)
    await driver.pass_time(16_000)
    with pytest.raises(UnknownWorkerError):
        await renew(driver)


async def test_only_its_own_process_removes_a_worker(driver: RegistryDriver) -> None:
    """The old process of a restarted worker may deregister after the new process has registered."""
    await register(driver)
    await register(driver, incarnation="second")
    assert not await driver.registry.remove_worker("w1", incarnation="first")
    assert await driver.workers() == ["w1"]
    assert await driver.registry.remove_worker("w1", incarnation="second")
    assert await driver.workers() == []
    assert not await driver.registry.remove_worker("w1", incarnation="second")


# ── leases ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_silent_worker_is_lost_when_its_lease_ends(driver: RegistryDriver) -> None:
    await register(driver, "silent")
    await register(driver, "alive")
    for _ in range(20):
        await driver.pass_time(1000)
        await renew(driver, "alive")
    assert await driver.workers() == ["alive"]


async def test_an_outage_ends_no_lease(driver: RegistryDriver) -> None:
    """While Redis or all gateways are down, no tick runs and no heartbeat arrives.

    Afterwards, workers have time to renew their leases.
    """
    await register(driver)
    await driver.pass_time(14_000)
    driver.now += 3_600_000
    view = await driver.registry.tick()
    assert [worker.id for worker in view.workers] == ["w1"]
    await driver.pass_time(GRACE_MS - 1)
    assert await driver.workers() == ["w1"]
    await renew(driver)
    await driver.pass_time(14_000)
    assert await driver.workers() == ["w1"]


async def test_a_worker_that_an_outage_has_killed_is_lost_after_the_grace(driver: RegistryDriver) -> None:
    await register(driver)
    await driver.pass_time(14_000)
    driver.now += 3_600_000
    await driver.pass_time(GRACE_MS)
    assert await driver.workers() == []


async def test_a_step_of_the_wall_clock_ends_no_lease(driver: RegistryDriver) -> None:
    await register(driver)
    driver.now -= 3_600_000
    await driver.pass_time(10_000)
    assert await driver.workers() == ["w1"]


async def test_leases_end_even_if_every_tick_is_late(driver: RegistryDriver) -> None:
    await register(driver)
    for _ in range(30):
        driver.now += LEASE_STEP_MS + 1
        await driver.registry.tick()
    assert await driver.workers() == []


async def test_a_view_shows_no_lost_worker_however_many_there_are(driver: RegistryDriver) -> None:
    """One tick removes a limited number of lost workers. The view leaves out the lost workers that remain."""
    for number in range(WORKERS_LOST_MAX + 5):
        await register(driver, f"w{number}")
    await driver.pass_time(14_000)
    driver.now += 1000
    assert (await driver.registry.tick()).workers == ()
    assert driver.client.zcard(driver.keys.single("workers")) == 5
    assert await driver.workers() == []
    await driver.registry.tick()
    assert driver.client.zcard(driver.keys.single("workers")) == 0


async def test_a_worker_was_last_seen_at_its_last_heartbeat(driver: RegistryDriver) -> None:
    await driver.registry.add_worker(worker(), incarnation="i", lease_s=15)
    registered = driver.now
    await driver.pass_time(2000)
    (found,) = (await driver.registry.view()).workers
    assert found.seen_ms == registered
    await driver.registry.renew_worker(worker(), incarnation="i", lease_s=15)
    (found,) = (await driver.registry.view()).workers
    assert found.seen_ms == registered + 2000
