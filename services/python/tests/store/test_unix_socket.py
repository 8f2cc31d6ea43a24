"""Redis on a Unix socket, and the options of a Redis URL: every face works with what the settings accept."""

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
    """A server with a password, reached by a socket; the kernel wants a short path."""
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


def endpoint(path: Path, user: str = f":{quote(PASSWORD, safe='')}@", **more: str) -> Endpoint:
    options = more.pop("options", "")
    url = f"unix://{user}{quote(str(path))}{options}"
    return Endpoint.configured(RedisSettings.model_validate({"url": url, **more}))


@pytest.mark.parametrize("options", ["", "?db=3", "?client_name=of-a-test&db=2"])
async def test_every_face_works_over_a_unix_socket(socket_path: Path, options: str) -> None:
    """Store, queue, events and the doctor's look; the database is an option of the URL."""
    where = endpoint(socket_path, options=options)
    assert await run_task_lifecycle(where) is State.SUCCEEDED
    found = await facts(where)
    assert (found.error, found.product) == (None, "valkey")
    with connect(where, timeout_s=5) as client:
        client.ping()
        database = options.rpartition("db=")[2] or "0"
        assert f"db{database}" in client.info("keyspace")
        client.flushdb()


async def test_an_idle_leader_hears_the_bell_over_a_unix_socket(socket_path: Path) -> None:
    """The blocking read has a connection of its own: it waits without an error while there is nothing to do."""
    queue = RedisQueue(endpoint(socket_path), pool="idle")
    group = GroupRecord(id=GroupId("g"), state=GroupState.IDLE)
    try:
        claim = await asyncio.to_thread(queue.claim, group, wait_s=0.2)
        assert claim is None
    finally:
        queue.close()


async def test_a_password_file_goes_with_a_unix_socket(socket_path: Path, tmp_path: Path) -> None:
    """The URL then names the user alone, or nobody."""
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    for user in ("", "default@"):
        where = endpoint(socket_path, user, password_file=str(file), options="?db=1")
        assert await run_task_lifecycle(where) is State.SUCCEEDED
        with connect(where, timeout_s=5) as client:
            client.flushdb()
    file.write_text("wrong")
    refused = await facts(endpoint(socket_path, "", password_file=str(file)))
    assert (refused.error or "").startswith("Redis refuses the user or the password")


async def test_a_socket_that_is_not_there_is_an_error_that_names_it(tmp_path: Path) -> None:
    found = await facts(Endpoint(url="unix:///no/such.sock"))
    assert "cannot be reached" in (found.error or "")
    assert "/no/such.sock" in (found.error or "")
