"""A caller that waits for a change sees it at once. Another load in a heartbeat does not count as a change."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable

import pytest

from daybreak_server.adapters.redis.limits import CHANGES_MAX
from daybreak_server.domain.models import ReplicaState
from daybreak_server.ports.registry import Registry
from daybreak_server.ports.store_errors import StoreUnavailableError
from testkit.registry_driver import RegistryDriver, model, plan_with, report, worker
from testkit.valkey import Server

TIMEOUT_S = 60.0
"""How long a test waits: much longer than it takes to see a change. A call of ``wait`` that must return before its own
timeout gets a timeout ten times as long."""
VISIBLE: dict[str, Callable[[Registry], Awaitable[object]]] = {
    "a model": lambda registry: registry.add_model(model("new")),
    "a deleted model": lambda registry: registry.mark_deleted("chat"),
    "a worker": lambda registry: registry.add_worker(worker("new"), incarnation="i", lease_s=15),
    "the end of a worker": lambda registry: registry.remove_worker("w1", incarnation="i"),
    "a replica's state": lambda registry: registry.renew_worker(
        worker(replicas=[report(state=ReplicaState.STARTING)]), incarnation="i", lease_s=15
    ),
    "a draining worker": lambda registry: registry.renew_worker(
        worker(replicas=[report()], draining=True), incarnation="i", lease_s=15
    ),
    "a plan": lambda registry: registry.publish_plan("m", plan_with(("chat", "w1"))),
    "another manager": lambda registry: registry.hold_placement("n", priority=1, ttl_s=15),
    "no manager": lambda registry: registry.release_placement("m"),
    "demand": lambda registry: registry.publish_demand("g", {"chat": 1}, ttl_s=15),
}


async def begin(driver: RegistryDriver) -> int:
    """Register a model, a worker that runs it, and a manager. Return the version of the registry."""
    await driver.registry.add_model(model())
    await driver.registry.add_worker(worker(replicas=[report()]), incarnation="i", lease_s=15)
    await driver.registry.hold_placement("m", priority=0, ttl_s=15)
    return await driver.version()


@pytest.mark.parametrize("name", VISIBLE)
async def test_a_wait_ends_at_once_with_a_change(driver: RegistryDriver, name: str) -> None:
    version = await begin(driver)
    waiting = asyncio.create_task(driver.registry.wait(after=version, timeout_s=10 * TIMEOUT_S))
    await driver.wait_blocked()
    await VISIBLE[name](driver.registry)
    async with asyncio.timeout(TIMEOUT_S):
        assert await waiting == version + 1
    assert await driver.version() == version + 1


async def test_a_lost_lease_is_a_change(driver: RegistryDriver) -> None:
    version = await begin(driver)
    await driver.pass_time(14_000)
    assert await driver.version() == version
    await driver.pass_time(1000)
    assert await driver.version() == version + 1


async def test_loads_and_repeated_calls_are_no_changes(driver: RegistryDriver) -> None:
    version = await begin(driver)
    registry = driver.registry
    for requests in range(3):
        reported = worker(replicas=[report(requests=requests)], memory_free_bytes=requests)
        await registry.renew_worker(reported, incarnation="i", lease_s=15)
        await registry.hold_placement("m", priority=0, ttl_s=15)
        await registry.add_model(model())
        await registry.remove_model("chat")
        await registry.publish_demand("g", {}, ttl_s=5)
        await registry.release_placement("other")
        await driver.pass_time(1000)
    assert await driver.version() == version
    (seen,) = (await registry.view()).workers
    assert (seen.replicas[0].requests, seen.memory_free_bytes) == (2, 2)


async def test_a_restarted_worker_that_has_its_replica_again_is_a_change(driver: RegistryDriver) -> None:
    """The new process registers without replicas. Its next heartbeat equals the last heartbeat of the old process."""
    await begin(driver)
    await driver.registry.renew_worker(worker(replicas=[report()]), incarnation="i", lease_s=15)
    await driver.registry.add_worker(worker(), incarnation="j", lease_s=15)
    version = await driver.version()
    await driver.registry.renew_worker(worker(replicas=[report()]), incarnation="j", lease_s=15)
    assert await driver.version() == version + 1


async def test_a_version_that_has_passed_is_not_waited_for(driver: RegistryDriver) -> None:
    version = await begin(driver)
    async with asyncio.timeout(TIMEOUT_S):
        assert await driver.registry.wait(after=version - 1, timeout_s=10 * TIMEOUT_S) == version
        assert await driver.registry.wait(after=0, timeout_s=10 * TIMEOUT_S) == version


async def test_a_wait_without_a_change_ends(driver: RegistryDriver) -> None:
    version = await begin(driver)
    assert await driver.registry.wait(after=version, timeout_s=0.01) == version


async def test_a_wait_delays_no_other_call(driver: RegistryDriver) -> None:
    """Each call that blocks has a separate connection, so several can wait at once."""
    version = await begin(driver)
    waiting = [
        asyncio.create_task(driver.registry.wait(after=version, timeout_s=10 * TIMEOUT_S)) for _ in range(2)
    ]
    await driver.wait_blocked(2)
    async with asyncio.timeout(TIMEOUT_S):
        await driver.registry.view()
        waiting[0].cancel()
        await asyncio.wait(waiting[:1])
        await driver.registry.add_model(model("new"))
        assert await waiting[1] == version + 1
        assert await driver.registry.wait(after=version, timeout_s=TIMEOUT_S) == version + 1


async def test_a_wait_at_a_frozen_server_fails_soon(server: Server) -> None:
    """If the wait did not fail, a manager could wait until its lease ends, and gateways would route by an old view."""
    driver = RegistryDriver(server.url, timeout_s=0.5)
    try:
        version = await begin(driver)
        assert server.pid is not None
        os.kill(server.pid, signal.SIGSTOP)
        try:
            # The connection's own timeout is half a minute, so a longer limit would test nothing.
            async with asyncio.timeout(20):
                with pytest.raises(StoreUnavailableError):
                    await driver.registry.wait(after=version, timeout_s=0.5)
        finally:
            os.kill(server.pid, signal.SIGCONT)
        await driver.registry.add_model(model("new"))
        assert await driver.registry.wait(after=version, timeout_s=TIMEOUT_S) == version + 1
    finally:
        await driver.close()


async def test_a_registry_that_has_lost_its_data_begins_again(driver: RegistryDriver) -> None:
    """The registry's version falls. Readers that wait for a higher version read again when their wait times out."""
    version = await begin(driver)
    driver.client.flushall()
    driver.now += 1000
    assert await driver.registry.wait(after=version, timeout_s=0.01) == version
    assert (await driver.registry.tick()).version == 0
    await driver.registry.add_model(model())
    assert await driver.registry.wait(after=0, timeout_s=TIMEOUT_S) == 1


async def test_the_stream_of_changes_stays_short(driver: RegistryDriver) -> None:
    """Trimming is approximate: Redis removes only whole nodes of the stream's tree, by default of 100 entries each."""
    await begin(driver)
    for number in range(4 * CHANGES_MAX):
        await driver.registry.hold_placement(f"m{number}", priority=number, ttl_s=15)
    assert driver.client.xlen(driver.keys.single("changes")) <= 2 * CHANGES_MAX
