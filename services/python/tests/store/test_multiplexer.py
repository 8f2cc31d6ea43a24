"""The connection that all coroutines share: each caller gets its own answers, and a lost connection is replaced."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import exceptions as failures

from daybreak_server.adapters.redis.client import connect, connect_async
from daybreak_server.adapters.redis.multiplexer import Multiplexer, ServerError
from testkit.valkey import Server, start_valkey
from testkit.waiting import wait_until


@pytest.fixture
def stoppable(tmp_path: Path) -> Iterator[Server]:
    """A server that the test may stop."""
    server = start_valkey(tmp_path / "valkey")
    yield server
    server.stop()


async def test_each_caller_gets_its_own_answers(valkey: Server) -> None:
    """If some callers give up, the others still get their own answers. A failed command does not affect the next."""
    client = connect_async(valkey.url, timeout_s=5)
    multiplexer = Multiplexer(client, timeout_s=5)
    try:
        assert await multiplexer.execute(("PING",)) == [b"PONG"]
        calls = [
            asyncio.create_task(multiplexer.execute(("ECHO", f"n{number}"), ("ECHO", "x" * number)))
            for number in range(300)
        ]
        await asyncio.sleep(0)
        for task in calls[::7]:
            task.cancel()
        answers = await asyncio.gather(*calls, return_exceptions=True)
        for number, answer in enumerate(answers):
            if number % 7:
                assert answer == [b"n%d" % number, b"x" * number]
            else:
                assert isinstance(answer, asyncio.CancelledError)
        wrong, right = await multiplexer.execute(("NOSUCH",), ("ECHO", "still here"))
        assert isinstance(wrong, ServerError)
        assert right == b"still here"
    finally:
        await multiplexer.close()
        await client.aclose()


async def test_a_killed_server_fails_pending_calls_and_serves_later_ones(stoppable: Server) -> None:
    """A kill fails the pending call; after a restart the same multiplexer opens a new connection."""
    client = connect_async(stoppable.url, timeout_s=5)
    multiplexer = Multiplexer(client, timeout_s=5)
    try:
        waiting = asyncio.create_task(multiplexer.execute(("BLPOP", "nothing", "0")))
        with connect(stoppable.url, timeout_s=5) as other:
            await asyncio.to_thread(
                wait_until, lambda: other.info("clients")["blocked_clients"], what="a blocked call"
            )
        await asyncio.to_thread(stoppable.restart, hard=True)
        with pytest.raises(failures.ConnectionError):
            await waiting
        assert await multiplexer.execute(("PING",)) == [b"PONG"]
    finally:
        await multiplexer.close()
        await client.aclose()


async def test_a_server_that_does_not_answer_causes_a_timeout(stoppable: Server) -> None:
    """A call to a suspended server (SIGSTOP) times out, and the next call opens a new connection.

    A suspended server keeps its connections open, so only the timeout ends the call.
    """
    client = connect_async(stoppable.url, timeout_s=0.5)
    multiplexer = Multiplexer(client, timeout_s=0.5)
    assert stoppable.pid is not None
    try:
        await multiplexer.execute(("PING",))
        os.kill(stoppable.pid, signal.SIGSTOP)
        try:
            with pytest.raises(failures.TimeoutError):
                await multiplexer.execute(("PING",))
        finally:
            os.kill(stoppable.pid, signal.SIGCONT)
        assert await multiplexer.execute(("PING",)) == [b"PONG"]
    finally:
        await multiplexer.close()
        await client.aclose()


async def test_the_multiplexer_leaves_a_master_that_became_a_replica(stoppable: Server) -> None:
    """The caller gets the error ``READONLY``, and the next call uses a new connection."""
    client = connect_async(stoppable.url, timeout_s=5)
    multiplexer = Multiplexer(client, timeout_s=5)
    try:
        (before,) = await multiplexer.execute(("CLIENT", "ID"))
        with stoppable.client() as other:
            other.replicaof("127.0.0.1", stoppable.port)
        (refused,) = await multiplexer.execute(("SET", "a", "b"))
        assert isinstance(refused, ServerError)
        assert str(refused).startswith("READONLY")
        (after,) = await multiplexer.execute(("CLIENT", "ID"))
        assert after != before
    finally:
        await multiplexer.close()
        await client.aclose()
