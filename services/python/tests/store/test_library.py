"""The scripts are a function library that the store brings along: whatever the server has, calls are answered."""

from __future__ import annotations

from importlib.resources import files

from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.adapters.redis.scripts import FRAGMENTS, SCRIPTS, Library
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.domain.ids import new_group_id, new_task_id
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.tasks import Finished, NewTask, State
from daybreak_server.ports.tasks import Submitted
from testkit.valkey import Server


async def one_task(url: str) -> None:
    """Submit, claim, settle: through both faces."""
    store, queue = RedisStore(url), RedisQueue(url, pool="video")
    try:
        new = NewTask(id=new_task_id("video"), pool="video", tenant="t", input_json="{}")
        assert isinstance((await store.submit([new]))[0], Submitted)
        claim = queue.claim(GroupRecord(id=new_group_id(), state=GroupState.IDLE), wait_s=1)
        assert claim is not None
        assert queue.settle(claim.lease, Finished(artifacts=())).state is State.SUCCEEDED
        record = await store.get(new.id)
        assert record is not None
        assert record.state is State.SUCCEEDED
    finally:
        queue.close()
        await store.close()


async def test_library_is_loaded_where_it_is_missing(server: Server) -> None:
    """A server without the library, or with another version of it, gets it with the first call."""
    with server.client() as client:
        client.function_flush()
        await one_task(server.url)
        assert len(client.function_list()) == 1
        client.function_flush()
        await one_task(server.url)
        assert len(client.function_list()) == 1


async def test_it_works_without_the_right_to_load(server: Server) -> None:
    """Who may not load functions runs the same text as scripts."""
    with server.client() as client:
        client.function_flush()
        client.execute_command("ACL", "SETUSER", "guest", "on", ">pw", "~*", "&*", "+@all", "-function")
        try:
            await one_task(server.url.replace("redis://", "redis://guest:pw@"))
            assert client.function_list() == []
        finally:
            client.acl_deluser("guest")


async def test_full_server_without_the_library(server: Server) -> None:
    """What runs can end although memory is full and the library is gone: loading it would be refused."""
    store, queue = RedisStore(server.url), RedisQueue(server.url, pool="video")
    new = NewTask(id=new_task_id("video"), pool="video", tenant="t", input_json="{}")
    await store.submit([new])
    claim = queue.claim(GroupRecord(id=new_group_id(), state=GroupState.IDLE), wait_s=1)
    assert claim is not None
    with server.client() as client:
        client.config_set("maxmemory", "1mb")
        client.function_flush()
        try:
            assert queue.settle(claim.lease, Finished(artifacts=())).state is State.SUCCEEDED
        finally:
            client.config_set("maxmemory", "0")
    queue.close()
    await store.close()


def test_a_version_has_names_of_its_own() -> None:
    """Two versions can be on one server: names end in the hash of the whole text."""
    first, second = Library(), Library(clock_text="local function now_ms() return 2 end")
    names = {library.get(name).function for library in (first, second) for name in SCRIPTS}
    assert len(names) == 2 * len(SCRIPTS)


def test_every_file_is_in_the_library() -> None:
    """No script and no fragment is forgotten."""
    folder = files("daybreak_server.adapters.redis") / "lua"
    found = {entry.name.removesuffix(".lua") for entry in folder.iterdir() if entry.name.endswith(".lua")}
    assert found == set(SCRIPTS) | {f"_{name}" for name in FRAGMENTS} | {"_clock"}
