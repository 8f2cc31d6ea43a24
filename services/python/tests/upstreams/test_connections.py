"""The HTTP client against servers that send exactly the bytes that a test sets."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from daybreak_server.adapters.upstreams.client import HttpUpstreams
from daybreak_server.adapters.upstreams.connection import HIGH_WATER, MAX_HEAD_BYTES
from daybreak_server.local.free_ports import free_port
from daybreak_server.ports.upstreams import (
    AnswerCutOffError,
    NoAnswerError,
    UnreachableError,
    UpstreamRequest,
)
from testkit.redis_tls import Authority
from testkit.waiting import wait_until_async

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


def request(method: bytes = b"GET", body: bytes = b"", **changes) -> UpstreamRequest:
    return UpstreamRequest(
        **{
            "method": method,
            "target": b"/a?b=c",
            "headers": [(b"x-own", b"1")],
            "body": body,
            "length": len(body),
            **changes,
        }
    )


@asynccontextmanager
async def serving(talk: Talk) -> AsyncIterator[tuple[HttpUpstreams, str, list[int]]]:
    """Start a server that runs ``talk`` on each connection. Yields a client, the URL, and a list with an entry for each
    connection."""
    connections: list[int] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(1)
        try:
            await talk(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    port = free_port()
    server = await asyncio.start_server(connected, "127.0.0.1", port)
    upstreams = HttpUpstreams()
    try:
        yield upstreams, f"http://127.0.0.1:{port}", connections
    finally:
        await upstreams.close()
        server.close()
        await server.wait_closed()


def always(*parts: bytes, then_close: bool = False) -> Talk:
    """Answers each request with these bytes."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await reader.readuntil(b"\r\n\r\n")
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            if then_close:
                return

    return talk


async def whole(answer) -> bytes:
    parts = []
    while part := await answer.read():
        parts.append(part)
    return b"".join(parts)


async def test_a_connection_is_used_again_after_a_complete_answer():
    async with serving(always(OK)) as (upstreams, url, connections):
        for _ in range(3):
            answer = await upstreams.send(url, request())
            assert (answer.status, await whole(answer)) == (200, b"ok")
            assert answer.ended
        assert len(connections) == 1


async def test_a_request_is_written_as_it_is():
    heads: list[bytes] = []

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            body = await reader.readexactly(5) if b"content-length: 5" in head else b""
            if b"chunked" in head:
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = await reader.readuntil(b"0\r\n\r\n")
            heads.append(head + body)
            writer.write(OK)

    async def rest() -> AsyncIterator[bytes]:
        yield b"wor"
        yield b""
        yield b"ld"

    async with serving(talk) as (upstreams, url, _):
        host = url.removeprefix("http://").encode()
        await whole(await upstreams.send(url, request()))
        await whole(await upstreams.send(url, request(b"POST", b"hello")))
        await whole(await upstreams.send(url, request(b"POST")))
        await whole(await upstreams.send(url, request(b"PUT", b"hello ", rest=rest(), length=None)))
    line = b" /a?b=c HTTP/1.1\r\nhost: " + host + b"\r\nx-own: 1\r\n"
    assert heads == [
        b"GET" + line + b"\r\n",
        b"POST" + line + b"content-length: 5\r\n\r\nhello",
        b"POST" + line + b"content-length: 0\r\n\r\n",
        b"PUT" + line + b"transfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n"
        b"6\r\nhello \r\n3\r\nwor\r\n2\r\nld\r\n0\r\n\r\n",
    ]


@pytest.mark.parametrize(
    ("output", "status", "body", "again"),
    [
        pytest.param([b"HTTP/1.1 204 No Content\r\n\r\n"], 204, b"", True, id="no body"),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n", b"1\r\nc\r\n0\r\n\r\n"],
            200,
            b"abc",
            True,
            id="chunked",
        ),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nx-late: 1\r\n\r\n"],
            200,
            b"ab",
            True,
            id="trailers",
        ),
        pytest.param(
            [OK.replace(b"content", b"x-hop: 1\r\nconnection: Keep-Alive, X-Hop, content-length\r\ncontent")],
            200,
            b"ok",
            True,
            id="headers of the connection",
        ),
        pytest.param([b"HTTP/1.1 100 Continue\r\n\r\n", OK], 200, b"ok", True, id="interim answer"),
        pytest.param([bytes([byte]) for byte in OK], 200, b"ok", True, id="byte by byte"),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"],
            200,
            b"ok",
            False,
            id="close",
        ),
    ],
)
async def test_answers_of_all_forms(output, status, body, again):
    async with serving(always(*output)) as (upstreams, url, connections):
        for _ in range(2):
            answer = await upstreams.send(url, request())
            assert (answer.status, await whole(answer)) == (status, body)
            assert {name for name, _ in answer.headers} <= {b"content-length"}
        assert len(connections) == (1 if again else 2)


async def test_an_answer_without_a_length_ends_with_its_connection():
    async with serving(always(b"HTTP/1.1 200 OK\r\n\r\nabc", then_close=True)) as (upstreams, url, _):
        assert await whole(await upstreams.send(url, request())) == b"abc"


async def test_the_answer_to_head_has_no_body():
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n"
    async with serving(always(head)) as (upstreams, url, _):
        answer = await upstreams.send(url, request(b"HEAD"))
        assert await whole(answer) == b""
        assert answer.headers == [(b"content-length", b"1000")]


async def test_a_connection_that_ends_before_an_answer():
    async with serving(always(then_close=True)) as (upstreams, url, _):
        with pytest.raises(NoAnswerError) as caught:
            await upstreams.send(url, request())
        assert not caught.value.stale


async def test_a_closed_idle_connection_is_not_taken_for_a_dead_group():
    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await reader.readuntil(b"\r\n\r\n")  # the next request finds the connection closed

    async with serving(talk) as (upstreams, url, connections):
        await whole(await upstreams.send(url, request()))
        with pytest.raises(NoAnswerError) as caught:
            await upstreams.send(url, request())
        assert caught.value.stale
        await whole(await upstreams.send(url, request()))
        assert len(connections) == 2


@pytest.mark.parametrize(
    "output",
    [
        pytest.param([b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok"], id="too short"),
        pytest.param([b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nok"], id="within a chunk"),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n"], id="no last chunk"
        ),
        pytest.param(
            [b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\nnonsense\r\n"], id="bad chunk"
        ),
    ],
)
async def test_an_answer_that_is_cut_off_never_looks_complete(output):
    async with serving(always(*output, then_close=True)) as (upstreams, url, _):
        answer = await upstreams.send(url, request())
        assert answer.status == 200
        with pytest.raises(AnswerCutOffError):
            await whole(answer)


async def test_a_server_killed_between_the_head_and_the_body_has_not_answered():
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
    async with serving(always(head, then_close=True)) as (upstreams, url, _):
        with pytest.raises(NoAnswerError) as caught:
            await upstreams.send(url, request())
        assert not caught.value.stale


async def test_a_stream_has_begun_with_its_head():
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    async with serving(always(head)) as (upstreams, url, _):
        answer = await upstreams.send(url, request())
        assert (answer.status, answer.available) == (200, False)
        answer.close()


@pytest.mark.parametrize(
    "output", [b"SMTP ready\r\n\r\n", b"HTTP/1.1 200 OK\r\nx: " + b"x" * 2 * MAX_HEAD_BYTES]
)
async def test_what_is_not_http_is_refused(output):
    async with serving(always(output)) as (upstreams, url, _):
        with pytest.raises(AnswerCutOffError):
            await upstreams.send(url, request())


async def test_bytes_after_an_answer_are_not_the_next_answer():
    async with serving(always(OK + OK.replace(b"ok", b"no"))) as (upstreams, url, connections):
        for _ in range(2):
            assert await whole(await upstreams.send(url, request())) == b"ok"
        assert len(connections) == 2


async def test_a_port_where_nobody_listens_is_unreachable():
    upstreams = HttpUpstreams()
    with pytest.raises(UnreachableError):
        await upstreams.send(f"http://127.0.0.1:{free_port()}", request())


async def test_cancelling_and_closing_end_the_connection():
    gone = asyncio.Event()
    answering = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"POST"):
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n1")
        answering.set()
        assert await reader.read() == b""
        gone.set()

    async with serving(talk) as (upstreams, url, _):
        task = asyncio.create_task(upstreams.send(url, request()))
        await answering.wait()
        task.cancel()
        await gone.wait()
        gone.clear()
        answer = await upstreams.send(url, request(b"POST"))
        answer.close()
        answer.close()  # the second time changes nothing
        await gone.wait()


async def test_a_group_that_answers_early_gets_no_more_of_the_body():
    sent, early = 0, b""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        if early:
            writer.write(early)
            await reader.readexactly(1)
        writer.write(OK)
        await writer.drain()
        await asyncio.sleep(60)

    async def rest() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b"x" * 100_000
            await asyncio.sleep(0)

    async with serving(talk) as (upstreams, url, connections):
        for permission, least in ((b"HTTP/1.1 100 Continue\r\n\r\n", 1), (b"", 0)):
            sent, early = 0, permission
            answer = await upstreams.send(url, request(b"POST", b"x", rest=rest(), length=1 << 40))
            assert await whole(answer) == b"ok"
            assert least <= sent < 1000
        await whole(await upstreams.send(url, request()))
        assert len(connections) == 3


async def test_an_answer_is_not_read_faster_than_its_reader():
    written = 0

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n")
        for _ in range(1000):
            writer.write(b"x" * 100_000)
            await writer.drain()
            written += 100_000

    async with serving(talk) as (upstreams, url, _):
        answer = await upstreams.send(url, request())
        seen = [-2, -1]

        async def stands_still() -> bool:
            seen.append(written)
            return len(seen) > 8 and len(set(seen[-6:])) == 1

        await wait_until_async(stands_still, 60, "the server to wait")
        assert written < 50_000_000  # written, but not yet read: most of it is in the kernel's buffers
        assert len(await answer.read()) < 8 * HIGH_WATER
        assert len(await whole(answer)) > 99_000_000


async def test_connections_to_groups_that_left_are_closed():
    closed = asyncio.Event()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await always(OK)(reader, writer)
        finally:
            closed.set()

    async with serving(talk) as (upstreams, url, connections):
        await whole(await upstreams.send(url, request()))
        late = await upstreams.send(url, request())
        upstreams.keep(["http://127.0.0.1:1"])
        assert not closed.is_set()  # an answer that has begun is read to its end
        assert await whole(late) == b"ok"
        await closed.wait()
        assert len(connections) == 1


async def test_https_is_spoken_to_servers_whose_certificate_can_be_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(OK)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", port := free_port(), ssl=tls)
    stranger, client = HttpUpstreams(), HttpUpstreams()
    async with server:
        with pytest.raises(UnreachableError, match="CERTIFICATE_VERIFY_FAILED"):
            await stranger.send(f"https://127.0.0.1:{port}", request())
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
        answer = await client.send(f"https://127.0.0.1:{port}", request())
        assert (answer.status, await answer.read()) == (200, b"ok")
    await client.close()
