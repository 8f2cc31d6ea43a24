"""A master with replicas behind Sentinel: a task that was accepted survives the loss of the master."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from daybreak_server import wiring
from daybreak_server.adapters.redis.client import connect
from daybreak_server.adapters.redis.endpoint import Endpoint
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.domain.ids import TaskId, new_task_id
from daybreak_server.domain.tasks import NewTask, State
from daybreak_server.ports.store_errors import StoreError, StoreUnavailableError
from daybreak_server.ports.tasks import Submitted
from daybreak_server.settings.tree import RedisSettings
from testkit.pools import Pool, make_settings
from testkit.redis_sentinel import PASSWORD, SENTINEL_PASSWORD, Node, SentinelCluster
from testkit.valkey import binary
from testkit.waiting import wait_until

TASKS_BEFORE, TASKS_AFTER = 20, 20
"""How many tasks must be accepted before the master is lost, and after each step of the failover."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[SentinelCluster]:
    """Three Redis servers and three Sentinels."""
    program = binary("redis")
    if program is None:
        pytest.skip("no redis-server on PATH (Debian: apt-get install redis-server)")
    servers = SentinelCluster(tmp_path / "redis", program)
    try:
        servers.start()
        yield servers
    finally:
        servers.stop()


class Customer:
    """Submits one task after another and records which ones were accepted."""

    def __init__(self, pool: Pool) -> None:
        self.accepted: list[TaskId] = []
        self.refused = 0
        self._pool = pool
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._submit, daemon=True)
        self._thread.start()

    def wait(self, more: int) -> None:
        wanted = len(self.accepted) + more
        wait_until(lambda: len(self.accepted) >= wanted, 120, f"{more} more accepted tasks")

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(60)

    def _submit(self) -> None:
        while not self._stopped.wait(0.02):
            try:
                self.accepted.append(self._pool.submit(steps=2, step_s=0.005))
            except StoreError:
                self.refused += 1


def kill(node: Node) -> Callable[[], None]:
    """Kill the node, and return the function that starts it again."""
    node.kill()
    return node.start


def pause(node: Node) -> Callable[[], None]:
    """Pause the server's process, and return the function that resumes it.

    The server resumes as if it were still the master. Its buffers have the writes that clients sent during the pause.
    """
    pid = node.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize(("fail", "replicas"), [(kill, 1), (pause, 2)])
def test_a_failover_loses_no_accepted_task(
    cluster: SentinelCluster, tmp_path: Path, fail: Callable[[Node], Callable[[], None]], replicas: int
) -> None:
    """The master fails while tasks are submitted and run, and comes back later: every accepted task succeeds.

    When the master dies, one confirmation is enough, because Sentinel promotes the replica with the most data. When
    the master was only paused, some replicas may not know of the failover yet and still follow the old master. So in
    this case, every replica must confirm a submit.
    """
    redis = {**cluster.settings, "wait_replicas": replicas}
    pool = Pool(make_settings(cluster.master, tmp_path, redis=redis))
    member = wiring.build_rank(pool.settings, pool.name, on_broken=print)
    member.start()
    customer = Customer(pool)
    try:
        customer.wait(TASKS_BEFORE)
        old_master = cluster.master
        bring_back = fail(old_master)
        cluster.wait_master_other_than(old_master)
        bring_back()
        customer.wait(TASKS_AFTER)
        wait_until(lambda: not cluster.is_master(old_master), 60, "the old master to follow the new one")
        customer.wait(TASKS_AFTER)
        customer.stop()
        assert customer.refused > 0, "there was no moment without a master"
        for task in customer.accepted:
            pool.wait(task, State.SUCCEEDED)
    finally:
        customer.stop()
        member.stop(timeout_s=10)
        pool.close()


def test_a_submit_that_no_replica_confirms_is_refused(cluster: SentinelCluster) -> None:
    """A submit is refused while the replicas are paused, even over a new connection, and accepted afterwards."""
    endpoint = Endpoint.configured(RedisSettings.model_validate({**cluster.settings, "wait_replicas": 1}))
    task = NewTask(id=new_task_id("echo"), pool="echo", tenant="t", input_json="{}")
    replicas = [node.pid for node in cluster.nodes if node is not cluster.master]

    async def submit() -> Submitted | StoreError:
        store = RedisStore(endpoint)
        try:
            (answer,) = await store.submit([task])
            return answer
        finally:
            await store.close()

    for pid in replicas:
        os.kill(pid or 0, signal.SIGSTOP)
    try:
        for _ in range(2):
            with pytest.raises(StoreUnavailableError, match="0 of 1 replicas"):
                asyncio.run(submit())
    finally:
        for pid in replicas:
            os.kill(pid or 0, signal.SIGCONT)
    assert isinstance(asyncio.run(submit()), Submitted)


def test_the_passwords_of_master_and_sentinels_may_be_in_files(
    cluster: SentinelCluster, tmp_path: Path
) -> None:
    """Each new connection reads both files: the Sentinels' password and the master's."""
    files = {name: tmp_path / name for name in ("password", "sentinel_password")}
    settings = {
        **cluster.settings,
        "url": "redis://nowhere.invalid/0",
        "sentinel_password": None,
        **{f"{name}_file": str(path) for name, path in files.items()},
    }
    endpoint = Endpoint.configured(RedisSettings.model_validate(settings))
    files["password"].write_text(PASSWORD)
    files["sentinel_password"].write_text("wrong")

    async def ping() -> None:
        store = RedisStore(endpoint)
        try:
            with pytest.raises(StoreError):
                await store.ping()
            files["sentinel_password"].write_text(SENTINEL_PASSWORD)
            await store.ping()
        finally:
            await store.close()

    asyncio.run(ping())
    with connect(endpoint, timeout_s=5) as client:
        assert client.ping()


def test_concurrent_lookups_forget_no_sentinel(cluster: SentinelCluster) -> None:
    """One Sentinel is down. Threads and coroutines that look up the master concurrently still know all three."""
    cluster.sentinels[0].kill()
    endpoint = Endpoint.configured(RedisSettings.model_validate(cluster.settings))
    known = sorted(sentinel.port for sentinel in cluster.sentinels)

    def ports(pool: Any) -> list[int]:
        sentinels = pool.sentinel_manager.sentinels
        return sorted(sentinel.connection_pool.connection_kwargs["port"] for sentinel in sentinels)

    async def look_up_together() -> list[int]:
        pool = endpoint.async_pool(timeout_s=5)
        try:
            await asyncio.gather(*(pool.get_master_address() for _ in range(8)))
            return ports(pool)
        finally:
            await pool.aclose()

    assert asyncio.run(look_up_together()) == known
    pool = endpoint.pool(timeout_s=5)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: pool.get_master_address(), range(200)))
    assert ports(pool) == known
    pool.close()


def test_the_error_without_a_sentinel_shows_no_password(cluster: SentinelCluster) -> None:
    """One remaining Sentinel is enough. With none, the error names the master and shows no password."""
    for sentinel in cluster.sentinels[:2]:
        sentinel.kill()
    endpoint = Endpoint.configured(RedisSettings.model_validate(cluster.settings))

    async def ping() -> None:
        store = RedisStore(endpoint)
        try:
            await store.ping()
        finally:
            await store.close()

    asyncio.run(ping())
    cluster.sentinels[2].kill()
    with pytest.raises(StoreUnavailableError, match="No master found for 'daybreak'") as caught:
        asyncio.run(ping())
    assert "of-the-" not in str(caught.value)
