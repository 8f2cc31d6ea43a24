"""The fault tests of serving pools: the client sees how an answer ends, and a small run keeps every promise."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from verification.faults.options import ClusterOptions
from verification.faults.scenario_catalogue import ScenarioContext, ViolatedError
from verification.faults.serving.http_client import Client, Received
from verification.faults.serving.trial import decide, trial
from verification.faults.wish import Wish

HEAD = b"HTTP/1.1 200 OK\r\nAnswered-By: 7\r\n"


@asynccontextmanager
async def answering(*outputs: bytes) -> AsyncIterator[Client]:
    """A client of a server. On each connection, the server answers one request with the next output, and then closes
    the connection."""
    remaining = list(outputs)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(remaining.pop(0))
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        client = Client(*server.sockets[0].getsockname())
        yield client
        client.close()


async def post(client: Client) -> Received:
    return await client.post("/", b"", headers={}, timeout_s=20)


@pytest.mark.parametrize(
    ("output", "complete", "begun", "body"),
    [
        (HEAD + b"Content-Length: 3\r\n\r\nabc", True, True, b"abc"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", True, True, b"abc"),
        (HEAD + b"Content-Length: 3\r\n\r\nab", False, True, b"ab"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", False, True, b"ab"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n", False, True, b"ab"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", False, True, b""),
        (HEAD + b"\r\nabc", False, True, b""),
        (HEAD, False, True, b""),
        (b"", False, False, b""),
        (b"nonsense\r\n\r\n", False, True, b""),
    ],
)
async def test_the_client_sees_whether_an_answer_has_begun_and_whether_it_has_its_end(
    output: bytes, complete: bool, begun: bool, body: bytes
) -> None:
    async with answering(output) as client:
        received = await post(client)
    assert received.complete is complete
    assert (received.first is not None) is begun
    assert (received.size, received.crc) == (len(body), zlib.crc32(body))
    assert bool(received.error) is not complete


async def test_the_client_opens_a_new_connection_if_the_server_has_closed_the_idle_one() -> None:
    answer = HEAD + b"Content-Length: 1\r\n\r\n"
    async with answering(answer + b"a", answer + b"b") as client:
        first = await post(client)
        while not client.closed_by_server:
            await asyncio.sleep(0.01)
        second = await post(client)
    assert (first.crc, second.crc) == (zlib.crc32(b"a"), zlib.crc32(b"b"))


def test_a_small_run_with_kills_keeps_every_promise(tmp_path: Path) -> None:
    context = ScenarioContext(options=ClusterOptions(folder=tmp_path / "cluster"), seed=3)
    with trial(context, groups=2, clients=6) as run:
        for kind in ("leader", "gateway"):
            target = run.targets(kind)[0]
            run.cluster.kill(target)
            run.wait_replaced(target)
            run.load.wait_for(20)
        seen = decide(run)
    assert len(seen.requests) > 40
    assert sum(len(request.runs) for request in seen.requests.values()) >= len(seen.requests)
    assert {fault.kind for fault in seen.faults} == {"kill-leader", "kill-gateway"}


def test_a_run_that_breaks_a_promise_is_not_decided_to_be_well(tmp_path: Path) -> None:
    """The deadlines of these requests pass before any answer."""
    context = ScenarioContext(options=ClusterOptions(folder=tmp_path / "cluster"), seed=3, log=lambda _: None)
    with (
        pytest.raises(ViolatedError, match="× failed"),
        trial(context, groups=1, clients=2, wish=lambda _: Wish(latency_s=5.0), deadline_s=0.3) as run,
    ):
        decide(run)
