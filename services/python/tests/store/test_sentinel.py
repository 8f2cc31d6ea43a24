"""A master with replicas behind Sentinel: what was accepted outlives the master."""

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

BEFORE, AFTER = 20, 20


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[SentinelCluster]:
    """Three servers and three Sentinels."""
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
    """Submits without a pause, and remembers what was accepted."""

    def __init__(self, pool: Pool) -> None:
        self.accepted: list[TaskId] = []
        self.refused = 0
        self._pool = pool
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._submit, daemon=True)
        self._thread.start()

    def wait(self, more: int) -> None:
        enough = len(self.accepted) + more
        wait_until(lambda: len(self.accepted) >= enough, 120, f"{more} more accepted tasks")

    def stop(self) -> None:
        self._over.set()
        self._thread.join(60)

    def _submit(self) -> None:
        while not self._over.wait(0.02):
            try:
                self.accepted.append(self._pool.submit(steps=2, step_s=0.005))
            except StoreError:
                self.refused += 1


def kill(node: Node) -> Callable[[], None]:
    node.kill()
    return node.start


def pause(node: Node) -> Callable[[], None]:
    """It resumes as if it were the master, with the writes of that time in its buffers."""
    pid = node.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    return lambda: os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize(("lose", "replicas"), [(kill, 1), (pause, 2)])
def test_a_fail_over_loses_no_accepted_task(
    watched: SentinelCluster, tmp_path: Path, lose: Callable[[Node], Callable[[], None]], replicas: int
) -> None:
    """The master goes while tasks come and are worked at, and comes back later: all that was accepted succeeds.

    One replica is enough against a master that dies: Sentinel promotes the one that has most. A master that was
    only away for a while still has those replicas that were not told yet, so all must have what it accepts.
    """
    redis = {**watched.settings, "wait_replicas": replicas}
    pool = Pool(make_settings(watched.master, tmp_path, redis=redis))
    member = wiring.build_rank(pool.settings, pool.name, on_broken=print)
    member.start()
    customer = Customer(pool)
    try:
        customer.wait(BEFORE)
        old = watched.master
        bring_back = lose(old)
        watched.wait_master_other_than(old)
        bring_back()
        customer.wait(AFTER)
        wait_until(lambda: not watched.is_master(old), 60, "the old master to follow the new one")
        customer.wait(AFTER)
        customer.stop()
        assert customer.refused > 0, "there was no moment without a master"
        for task in customer.accepted:
            pool.wait(task, State.SUCCEEDED)
    finally:
        customer.stop()
        member.stop(timeout_s=10)
        pool.close()


def test_what_no_replica_has_is_not_accepted(watched: SentinelCluster) -> None:
    """While the replicas stand still a submit is refused, over a new connection too; the same task is taken later."""
    where = Endpoint.configured(RedisSettings.model_validate({**watched.settings, "wait_replicas": 1}))
    task = NewTask(id=new_task_id("echo"), pool="echo", tenant="t", input_json="{}")
    replicas = [node.pid for node in watched.nodes if node is not watched.master]

    async def submit() -> Submitted | StoreError:
        store = RedisStore(where)
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


def test_passwords_may_be_in_files(watched: SentinelCluster, tmp_path: Path) -> None:
    """That of the Sentinels and that of the master: each is read when somebody connects."""
    files = {name: tmp_path / name for name in ("password", "sentinel_password")}
    given = {
        **watched.settings,
        "url": "redis://nowhere.invalid/0",
        "sentinel_password": None,
        **{f"{name}_file": str(path) for name, path in files.items()},
    }
    where = Endpoint.configured(RedisSettings.model_validate(given))
    files["password"].write_text(PASSWORD)
    files["sentinel_password"].write_text("wrong")

    async def ping() -> None:
        store = RedisStore(where)
        try:
            with pytest.raises(StoreError):
                await store.ping()
            files["sentinel_password"].write_text(SENTINEL_PASSWORD)
            await store.ping()
        finally:
            await store.close()

    asyncio.run(ping())
    with connect(where, timeout_s=5) as client:
        assert client.ping()


def test_no_sentinel_is_forgotten_by_those_who_ask_at_once(watched: SentinelCluster) -> None:
    """The first is away: threads and coroutines that look for the master together still know all three after it."""
    watched.sentinels[0].kill()
    where = Endpoint.configured(RedisSettings.model_validate(watched.settings))
    known = sorted(sentinel.port for sentinel in watched.sentinels)

    def ports(pool: Any) -> list[int]:
        sentinels = pool.sentinel_manager.sentinels
        return sorted(sentinel.connection_pool.connection_kwargs["port"] for sentinel in sentinels)

    async def together() -> list[int]:
        pool = where.async_pool(timeout_s=5)
        try:
            await asyncio.gather(*(pool.get_master_address() for _ in range(8)))
            return ports(pool)
        finally:
            await pool.aclose()

    assert asyncio.run(together()) == known
    pool = where.pool(timeout_s=5)
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda _: pool.get_master_address(), range(200)))
    assert ports(pool) == known
    pool.close()


def test_sentinels_that_do_not_answer_are_said(watched: SentinelCluster) -> None:
    """With one Sentinel left everything works; with none, the error names them and not a password."""
    for sentinel in watched.sentinels[:2]:
        sentinel.kill()
    where = Endpoint.configured(RedisSettings.model_validate(watched.settings))

    async def ping() -> None:
        store = RedisStore(where)
        try:
            await store.ping()
        finally:
            await store.close()

    asyncio.run(ping())
    watched.sentinels[2].kill()
    with pytest.raises(StoreUnavailableError, match="No master found for 'daybreak'") as caught:
        asyncio.run(ping())
    assert "of-the-" not in str(caught.value)
