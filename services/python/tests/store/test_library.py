"""The store loads its Lua scripts as a function library.

The store also works if the server has lost the library, refuses to load it, or has another version beside it.
"""

from __future__ import annotations

from importlib.resources import files

import pytest

from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.adapters.redis.scripts import FRAGMENTS, SCRIPTS, Library
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.domain.ids import new_group_id, new_task_id
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.tasks import Finished, NewTask, State
from daybreak_server.ports.tasks import Submitted
from testkit.valkey import Server


async def run_task(url: str) -> None:
    """Submit, claim and settle one task, through the store and the queue."""
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


async def test_the_first_call_loads_a_missing_library(server: Server) -> None:
    """If a server lacks the library, the next call loads it, even if the server had it before."""
    with server.client() as client:
        client.function_flush()
        await run_task(server.url)
        assert len(client.function_list()) == 1
        client.function_flush()
        await run_task(server.url)
        assert len(client.function_list()) == 1


async def test_a_user_who_may_not_load_functions_runs_scripts(server: Server) -> None:
    """For a user without permission to load functions, the store runs the same Lua text as scripts."""
    with server.client() as client:
        client.function_flush()
        client.execute_command("ACL", "SETUSER", "guest", "on", ">pw", "~*", "&*", "+@all", "-function")
        try:
            await run_task(server.url.replace("redis://", "redis://guest:pw@"))
            assert client.function_list() == []
        finally:
            client.acl_deluser("guest")


async def test_a_task_can_end_on_a_full_server_without_the_library(server: Server) -> None:
    """A server with full memory refuses to load the missing library, but a running task can still end."""
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


def test_two_versions_share_no_function_name() -> None:
    """Two versions can be on one server, because each function name ends in the hash of the library's text."""
    first, second = Library(), Library(clock_text="local function now_ms() return 2 end")
    names = {library.get(name).function for library in (first, second) for name in SCRIPTS}
    assert len(names) == 2 * len(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_each_script_compiles_alone(server: Server, name: str) -> None:
    """``EVAL`` runs the text of one script. Lua refuses a text with more than 200 local variables in scope."""
    with server.client() as client:
        client.script_load(Library().get(name).text)


def test_every_lua_file_is_in_the_library() -> None:
    """Each Lua file in the folder is a script or a fragment of the library."""
    folder = files("daybreak_server.adapters.redis") / "lua"
    lua_files = {entry.name.removesuffix(".lua") for entry in folder.iterdir() if entry.name.endswith(".lua")}
    assert lua_files == set(SCRIPTS) | {f"_{name}" for name in FRAGMENTS} | {"_clock"}
