"""The function libraries of the registry and of the queue work side by side. If a Redis user may not load
functions, scripts do the same work."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from daybreak_server.adapters.redis.registry.keys import FAMILIES, SINGLE
from daybreak_server.adapters.redis.registry.library import NAME, RegistryLibrary, lua_text
from daybreak_server.adapters.redis.registry.store import RedisRegistry
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.local.free_ports import free_port
from testkit.registry_driver import RegistryDriver, model, report, worker
from testkit.valkey import Server, binary
from testkit.waiting import wait_until


async def use(url: str) -> None:
    """Register a model and a worker, and read them."""
    registry = RedisRegistry(url)
    try:
        await registry.add_model(model())
        await registry.add_worker(worker(), incarnation="i", lease_s=15)
        await registry.renew_worker(worker(replicas=[report()]), incarnation="i", lease_s=15)
        view = await registry.tick()
        assert (list(view.models), [found.id for found in view.workers]) == (["chat"], ["w1"])
        assert view.now_ms > 1_700_000_000_000
    finally:
        await registry.close()


async def test_the_libraries_of_queue_and_registry_stand_side_by_side(server: Server) -> None:
    store = RedisStore(server.url)
    try:
        with server.client() as client:
            client.function_flush()
            for _ in range(2):
                await store.tick("video")
                await use(server.url)
            assert len(client.function_list()) == 2
    finally:
        await store.close()


async def test_a_user_who_may_not_load_functions_runs_scripts(server: Server) -> None:
    with server.client() as client:
        client.function_flush()
        client.execute_command("ACL", "SETUSER", "guest", "on", ">pw", "~*", "&*", "+@all", "-function")
        try:
            await use(server.url.replace("redis://", "redis://guest:pw@"))
            assert client.function_list() == []
        finally:
            client.acl_deluser("guest")


@pytest.mark.parametrize("flavour", ["valkey", "redis"])
async def test_a_node_of_a_cluster_serves_the_registry(tmp_path: Path, flavour: str) -> None:
    """All keys of the registry are in one slot, so one node has them. Nodes refuse calls with keys of several slots."""
    program = binary(flavour)
    if program is None:
        pytest.skip("no redis-server on PATH (Debian: apt-get install redis-server)")
    node = Server(tmp_path, program, cluster_enabled="yes", cluster_port=str(free_port()))
    node.start()
    try:
        with node.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
            wait_until(lambda: client.cluster("INFO")["cluster_state"] == "ok", 60, "the cluster")
        await use(node.url)
        registry = RedisRegistry(node.url)
        try:
            version = (await registry.view()).version
            assert await registry.wait(after=version - 1, timeout_s=60) == version
        finally:
            await registry.close()
    finally:
        node.stop()


async def test_heartbeats_are_taken_in_by_a_full_server(driver: RegistryDriver) -> None:
    """If a full Redis refused heartbeats, all workers would lose their leases."""
    await driver.registry.add_worker(worker(), incarnation="i", lease_s=15)
    driver.client.config_set("maxmemory", "1mb")
    try:
        await driver.registry.renew_worker(worker(replicas=[report()]), incarnation="i", lease_s=15)
        assert len((await driver.registry.tick()).workers) == 1
    finally:
        driver.client.config_set("maxmemory", "0")


def test_each_text_has_a_name_of_its_own() -> None:
    other = RegistryLibrary(clock_text="local function now_ms() return 2 end")
    assert RegistryLibrary().get(NAME).function != other.get(NAME).function


def test_the_script_uses_only_keys_that_are_documented() -> None:
    text = lua_text()
    assert set(re.findall(r"key\('(\w+)'\)", text)) == set(SINGLE)
    assert set(re.findall(r"P \.\. '([^']+)'", text)) == {family.before for family in FAMILIES.values()}
