"""Redis on a Unix socket, and options in the Redis URL: every adapter works with every URL that the settings accept."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from daybreak_server.adapters.redis.client import connect
from daybreak_server.adapters.redis.endpoint import Endpoint
from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.adapters.redis.server_facts import facts
from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.tasks import State
from daybreak_server.settings.tree import RedisSettings
from testkit.task_lifecycle import run_task_lifecycle
from testkit.valkey import Server, binary

PASSWORD = "p/w#of?the@socket"


@pytest.fixture(scope="module")
def socket_path() -> Iterator[Path]:
    """The socket of a server with a password, below `/tmp` because the kernel limits the length of its path."""
    folder = Path(tempfile.mkdtemp(prefix="db-", dir="/tmp"))
    program = binary()
    assert program is not None
    path = folder / "redis server.sock"
    server = Server(folder, program, unixsocket=str(path), databases="4")
    server.start()
    with server.client() as client:
        client.config_set("requirepass", PASSWORD)
    yield path
    server.kill()
    shutil.rmtree(folder)


def endpoint_of(path: Path, user: str = f":{quote(PASSWORD, safe='')}@", **settings: str) -> Endpoint:
    options = settings.pop("options", "")
    url = f"unix://{user}{quote(str(path))}{options}"
    return Endpoint.configured(RedisSettings.model_validate({"url": url, **settings}))


@pytest.mark.parametrize("options", ["", "?db=3", "?client_name=of-a-test&db=2"])
async def test_every_adapter_works_over_a_unix_socket(socket_path: Path, options: str) -> None:
    """Store, queue, events and the facts for `doctor` work. The number of the database is an option of the URL."""
    endpoint = endpoint_of(socket_path, options=options)
    assert await run_task_lifecycle(endpoint) is State.SUCCEEDED
    reported = await facts(endpoint)
    assert (reported.error, reported.product) == (None, "valkey")
    with connect(endpoint, timeout_s=5) as client:
        client.ping()
        database = options.rpartition("db=")[2] or "0"
        assert f"db{database}" in client.info("keyspace")
        client.flushdb()


async def test_an_idle_leader_waits_over_a_unix_socket(socket_path: Path) -> None:
    """The blocking read has a connection of its own, and waits without an error while the queue is empty."""
    queue = RedisQueue(endpoint_of(socket_path), pool="idle")
    group = GroupRecord(id=GroupId("g"), state=GroupState.IDLE)
    try:
        claim = await asyncio.to_thread(queue.claim, group, wait_s=0.2)
        assert claim is None
    finally:
        queue.close()


async def test_a_password_file_works_with_a_unix_socket(socket_path: Path, tmp_path: Path) -> None:
    """With a password file, the URL contains the user's name or no user at all."""
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    for user in ("", "default@"):
        endpoint = endpoint_of(socket_path, user, password_file=str(file), options="?db=1")
        assert await run_task_lifecycle(endpoint) is State.SUCCEEDED
        with connect(endpoint, timeout_s=5) as client:
            client.flushdb()
    file.write_text("wrong")
    refused = await facts(endpoint_of(socket_path, "", password_file=str(file)))
    assert (refused.error or "").startswith("Redis refuses the user or the password")


async def test_the_error_of_a_missing_socket_names_it(tmp_path: Path) -> None:
    reported = await facts(Endpoint(url="unix:///no/such.sock"))
    assert "cannot be reached" in (reported.error or "")
    assert "/no/such.sock" in (reported.error or "")
