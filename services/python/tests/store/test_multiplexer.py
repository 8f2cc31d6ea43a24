"""The connection that all coroutines share: every answer goes to who asked, whatever becomes of the connection."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import exceptions as failures

from daybreak_server.adapters.redis.client import connect_async
from daybreak_server.adapters.redis.multiplexer import Multiplexer, ServerError
from testkit.valkey import Server, start_valkey


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Server]:
    """A server that a test may stop."""
    server = start_valkey(tmp_path / "valkey")
    yield server
    server.stop()


async def test_each_caller_gets_its_own_answers(valkey: Server) -> None:
    """A crowd asks at once; errors are answers too; who gives up shifts nothing for the others."""
    client = connect_async(valkey.url, timeout_s=5)
    link = Multiplexer(client, timeout_s=5)
    try:
        assert await link.execute(("PING",)) == [b"PONG"]
        asking = [asyncio.create_task(link.execute(("ECHO", f"n{n}"), ("ECHO", "x" * n))) for n in range(300)]
        await asyncio.sleep(0)
        for task in asking[::7]:
            task.cancel()
        answers = await asyncio.gather(*asking, return_exceptions=True)
        for n, answer in enumerate(answers):
            if n % 7:
                assert answer == [b"n%d" % n, b"x" * n]
            else:
                assert isinstance(answer, asyncio.CancelledError)
        wrong, right = await link.execute(("NOSUCH",), ("ECHO", "still here"))
        assert isinstance(wrong, ServerError)
        assert right == b"still here"
    finally:
        await link.close()
        await client.aclose()


async def test_a_killed_server_fails_pending_calls_and_serves_later_ones(own: Server) -> None:
    """A kill ends the question under way; after a restart the same link asks over a new connection."""
    client = connect_async(own.url, timeout_s=5)
    link = Multiplexer(client, timeout_s=5)
    try:
        waiting = asyncio.create_task(link.execute(("BLPOP", "nothing", "0")))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(own.restart, hard=True)
        with pytest.raises(failures.ConnectionError):
            await waiting
        assert await link.execute(("PING",)) == [b"PONG"]
    finally:
        await link.close()
        await client.aclose()


async def test_a_server_that_does_not_answer_is_a_timeout(own: Server) -> None:
    """A stopped process keeps its connections: the question ends in time, the next one finds a new connection."""
    client = connect_async(own.url, timeout_s=0.5)
    link = Multiplexer(client, timeout_s=0.5)
    assert own.pid is not None
    try:
        await link.execute(("PING",))
        os.kill(own.pid, signal.SIGSTOP)
        try:
            with pytest.raises(failures.TimeoutError):
                await link.execute(("PING",))
        finally:
            os.kill(own.pid, signal.SIGCONT)
        assert await link.execute(("PING",)) == [b"PONG"]
    finally:
        await link.close()
        await client.aclose()


async def test_a_master_that_became_a_replica_is_left(own: Server) -> None:
    """Its refusal to write is answered, and what is asked next goes over a new connection."""
    client = connect_async(own.url, timeout_s=5)
    link = Multiplexer(client, timeout_s=5)
    try:
        (before,) = await link.execute(("CLIENT", "ID"))
        with own.client() as other:
            other.replicaof("127.0.0.1", own.port)
        (refused,) = await link.execute(("SET", "a", "b"))
        assert isinstance(refused, ServerError)
        assert str(refused).startswith("READONLY")
        (after,) = await link.execute(("CLIENT", "ID"))
        assert after != before
    finally:
        await link.close()
        await client.aclose()
