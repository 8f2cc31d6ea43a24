"""The password of Redis is in a file, like a Secret that Kubernetes mounts. Each new connection rereads the file."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from daybreak_server.adapters.redis.client import connect
from daybreak_server.adapters.redis.endpoint import Endpoint
from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.domain.causes import Cause
from daybreak_server.domain.ids import new_group_id, new_task_id
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.tasks import NewTask
from daybreak_server.ports.store_errors import StoreRefusedError
from daybreak_server.settings.tree import RedisSettings
from testkit.valkey import Server, binary

USER, PASSWORD = "ranks", "of the ranks"


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that requires a password."""
    program = binary()
    assert program is not None
    server = Server(tmp_path_factory.mktemp("locked"), program)
    server.start()
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", USER, "on", f">{PASSWORD}", "~*", "&*", "+@all")
        client.execute_command("ACL", "SETUSER", "default", "off")
    yield server
    server.kill()


@pytest.fixture
def endpoint(locked: Server, tmp_path: Path) -> Endpoint:
    """The endpoint as a child process receives it, through JSON. The password file does not exist yet."""
    url = locked.url.replace("//", f"//{USER}@")
    settings = RedisSettings(url=url, password_file=str(tmp_path / "password"))
    return Endpoint.of(json.loads(json.dumps(asdict(Endpoint.configured(settings)))))


def test_a_corrected_password_file_needs_no_restart(endpoint: Endpoint, tmp_path: Path) -> None:
    """A store raises an error while its password file is missing or wrong, and works once the file is right."""
    file = tmp_path / "password"

    async def connect_with_each_content() -> None:
        store = RedisStore(endpoint)
        task = NewTask(id=new_task_id("echo"), pool="echo", tenant="t", input_json="{}")
        try:
            with pytest.raises(StoreRefusedError, match=f"No such file.*{file.name}"):
                await store.ping()
            file.write_text("of another user")
            with pytest.raises(StoreRefusedError, match="refuses the user or the password"):
                await store.submit([task])
            file.write_text(f"{PASSWORD}\n")
            await store.submit([task])
            assert await store.get(task.id) is not None
        finally:
            await store.close()

    asyncio.run(connect_with_each_content())


def test_a_queue_also_reads_the_corrected_password_file(endpoint: Endpoint, tmp_path: Path) -> None:
    """A refused queue works once the file is right. Until then, its error says the same as the error of a store."""
    file = tmp_path / "password"
    file.write_text("wrong")
    queue = RedisQueue(endpoint, pool="echo", lease_s=5)
    with pytest.raises(StoreRefusedError, match="refuses the user or the password"):
        queue.report_failure(Cause(reason="RanksFail", message="nothing"), rank=0)
    file.write_text(PASSWORD)
    queue.report_failure(Cause(reason="RanksFail", message="nothing"), rank=0)
    queue.close()


def test_the_error_says_that_a_command_inside_a_script_is_not_permitted(
    locked: Server, tmp_path: Path
) -> None:
    """The user may log in and call scripts, but the script calls a command that the user may not call."""
    password = "of-the-limited"
    admin = Endpoint(url=locked.url.replace("//", f"//{USER}@"), password_file=str(tmp_path / "password"))
    (tmp_path / "password").write_text(PASSWORD)
    with connect(admin, timeout_s=5) as client:
        rules = ("on", f">{password}", "~*", "&*", "+@all", "-hmget")
        client.execute_command("ACL", "SETUSER", "limited", *rules)
    endpoint = Endpoint.configured(RedisSettings(url=locked.url.replace("//", f"//limited:{password}@")))
    with (
        contextlib.closing(RedisQueue(endpoint, pool="echo", lease_s=5)) as queue,
        pytest.raises(StoreRefusedError, match="does not permit the user to run a command"),
    ):
        queue.claim(GroupRecord(id=new_group_id(), state=GroupState.IDLE), wait_s=0)


def test_open_connections_stay_authenticated(endpoint: Endpoint, tmp_path: Path) -> None:
    """A wrong password in the file does not end an open connection."""
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    with connect(endpoint, timeout_s=5) as client:
        assert client.ping()
        file.write_text("wrong")
        assert client.ping()
