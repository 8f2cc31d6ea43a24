"""A client that keeps a given number of requests in flight over persistent connections, and needs little CPU time.

Each request is rendered as one string of bytes, and responses are split by their ``content-length``. The client
measures the time from the write of a request to the last byte of its response.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

import uvloop

_LENGTH = b"content-length: "


@dataclass(frozen=True, slots=True)
class Sample:
    """The figures of one round. ``client_busy`` is the client's CPU use as a share of one core."""

    rps: float
    p50_ms: float
    p99_ms: float
    client_busy: float


class _Caller(asyncio.Protocol):
    """One connection. It sends its next request as soon as the response to the previous one is complete."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = b""
        self._began = 0
        self._missing = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's transports are not subclasses of it
        self._next()

    def _next(self) -> None:
        request = self._load.next_request()
        if request is None:
            self._transport.close()
            return
        self._began = time.perf_counter_ns()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self._missing:
            self._missing -= len(data)
        else:
            self._buffer += data
            end = self._buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            at = self._buffer.index(_LENGTH) + len(_LENGTH)
            length = int(self._buffer[at : self._buffer.index(b"\r", at)])
            self._load.check_status(self._buffer)
            self._missing = end + 4 + length - len(self._buffer)
        if self._missing == 0:
            self._buffer = b""
            self._load.record_time(time.perf_counter_ns() - self._began)
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.ended(exc)


class Load:
    """One round. ``render`` makes a request's bytes from the request's number. Every response must have ``status``."""

    def __init__(self, port: int, render: Callable[[int], bytes], *, status: int = 202) -> None:
        self._port = port
        self._render = render
        self._status = f"HTTP/1.1 {status} ".encode()
        self._numbers: Iterator[int] = itertools.count(time.time_ns())
        self._until_ns = 0
        self._open_connections = 0
        self._times: list[int] = []
        self._failed: BaseException | None = None
        self._done = asyncio.Event()

    def next_request(self) -> bytes | None:
        if self._failed is not None or time.perf_counter_ns() >= self._until_ns:
            return None
        return self._render(next(self._numbers))

    def check_status(self, head: bytes) -> None:
        if not head.startswith(self._status):
            self._failed = RuntimeError(f"unexpected response from port {self._port}: {head[:400]!r}")

    def record_time(self, ns: int) -> None:
        self._times.append(ns)

    def ended(self, exc: Exception | None) -> None:
        if exc is not None or (time.perf_counter_ns() < self._until_ns and self._failed is None):
            self._failed = exc or ConnectionError("the server closed the connection")
        self._open_connections -= 1
        if not self._open_connections:
            self._done.set()

    async def run(self, *, concurrency: int, seconds: float) -> Sample:
        """Keep ``concurrency`` requests in flight for ``seconds``.

        :raises RuntimeError: on an unexpected response.
        :raises OSError: if a connection fails or the server closes it.
        """
        self._open_connections = concurrency
        began, cpu = time.perf_counter_ns(), time.process_time()
        self._until_ns = began + int(seconds * 1e9)
        loop = asyncio.get_running_loop()
        for _ in range(concurrency):
            await loop.create_connection(lambda: _Caller(self), "127.0.0.1", self._port)
        await self._done.wait()
        if self._failed is not None:
            raise self._failed
        wall_s = (time.perf_counter_ns() - began) / 1e9
        times = sorted(self._times)
        return Sample(
            rps=len(times) / wall_s,
            p50_ms=times[len(times) // 2] / 1e6,
            p99_ms=times[min(len(times) - 1, len(times) * 99 // 100)] / 1e6,
            client_busy=(time.process_time() - cpu) / wall_s,
        )


def run(
    port: int, render: Callable[[int], bytes], *, concurrency: int, seconds: float, status: int = 202
) -> Sample:
    """Run a round on a new event loop."""

    async def go() -> Sample:
        return await Load(port, render, status=status).run(concurrency=concurrency, seconds=seconds)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(go())


def post(path: str, body: bytes, *, headers: str = "") -> bytes:
    """The bytes of a JSON POST."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n{headers}\r\n"
    )
    return head.encode() + body
