"""The client of the routing benchmark: it keeps a number of requests in flight over persistent connections.

Each answer of the back end says how long the back end had the request (``took``). In a streamed answer, each token says
when the back end sent it (``sent``). Each sample is the time that a request or token spent outside the back end: in the
router, in the kernel, and in this client. A run without a router gives the shortest times that this client can measure.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import uvloop

from verification.benchmarks.routing.backend import MODEL

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_TOOK = re.compile(rb"took (\d+) ns")
_SENT = re.compile(rb"sent (\d+) ns")
_LAST_CHUNK = b"0\r\n\r\n"


@dataclass(slots=True)
class Samples:
    """The samples of one round. ``outside_ns`` has one value for each answer, or for each token if answers are
    streamed."""

    outside_ns: list[int] = field(default_factory=list)
    answers: int = 0
    seconds: float = 0.0
    client_busy: float = 0.0

    @property
    def rate(self) -> float:
        """Answers or tokens per second."""
        return len(self.outside_ns) / self.seconds

    def quantile_ms(self, share: float) -> float:
        """The time outside the back end that ``share`` of the samples do not exceed."""
        ordered = sorted(self.outside_ns)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] / 1e6


class _Caller(asyncio.Protocol):
    """One connection. It sends its next request when the answer to the previous request is complete."""

    def __init__(self, load: _Load) -> None:
        self._load = load
        self._buffer = b""
        self._began_ns = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        self._load.closed(exc)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        found = _LENGTH.search(self._buffer, 0, end)
        if len(self._buffer) == end + 4 + int(found[1]) if found else self._buffer.endswith(_LAST_CHUNK):
            now_ns = time.monotonic_ns()
            took = _TOOK.search(self._buffer, end)
            if took is None:
                self._load.fail(self._buffer)
            else:
                self._load.samples.outside_ns.append(now_ns - self._began_ns - int(took[1]))
            self._buffer = b""
            self._next()

    def _next(self) -> None:
        if self._load.ask():
            self._began_ns = time.monotonic_ns()
            self._transport.write(self._load.request)
        else:
            self._transport.close()


class _Stream(_Caller):
    """One connection that requests one streamed answer after the other, and takes a sample for each token."""

    def data_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        self._buffer += data
        cut = self._buffer.rfind(b"\n\n")
        if cut >= 0:
            marks = _SENT.findall(self._buffer, 0, cut)
            self._load.samples.outside_ns += [now_ns - int(sent) for sent in marks]
            self._buffer = self._buffer[cut:]
        elif b"\r\n\r\n" in self._buffer and not self._buffer.startswith(b"HTTP/1.1 200"):
            self._load.fail(self._buffer)
            # Close the connection, or this caller might never end: the answer may have no last chunk, and the router
            # keeps the connection open.
            self._transport.close()
            return
        if self._buffer.endswith(_LAST_CHUNK):
            self._buffer = b""
            self._next()


class _Load:
    """What all callers of one round share: the request, the time at which the round ends, and the samples."""

    def __init__(self, request: bytes) -> None:
        self.request = request
        self.samples = Samples()
        self.until_ns = 0
        self.left = 0
        self._failed: BaseException | None = None
        self._open = 0
        self._done = asyncio.Event()

    def ask(self) -> bool:
        """Return whether the caller should send one more request. If so, count this request."""
        if self._failed is not None or self.left <= 0 or time.monotonic_ns() >= self.until_ns:
            return False
        self.left -= 1
        self.samples.answers += 1
        return True

    def fail(self, answer: bytes) -> None:
        """Remember an answer that does not come from the back end, as the error of the round."""
        self._failed = RuntimeError(f"unexpected answer: {answer[:600]!r}")

    def closed(self, exc: Exception | None) -> None:
        """Handle the end of a connection."""
        if exc is not None or (
            self._failed is None and self.left > 0 and time.monotonic_ns() < self.until_ns
        ):
            self._failed = self._failed or exc or ConnectionError("the router closed a connection")
        self._open -= 1
        if not self._open:
            self._done.set()

    async def run(
        self, kind: type[_Caller], port: int, *, clients: int, seconds: float, requests: int, stagger_s: float
    ) -> Samples:
        """Run the round. Clients start ``stagger_s`` apart, so that they do not send at the same moments."""
        loop = asyncio.get_running_loop()
        self._open, self.left = clients, requests
        began, cpu = time.monotonic_ns(), time.process_time()
        self.until_ns = began + int(seconds * 1e9)
        for _ in range(clients):
            await loop.create_connection(lambda: kind(self), "127.0.0.1", port)
            if stagger_s:
                await asyncio.sleep(stagger_s)
        await self._done.wait()
        if self._failed is not None:
            raise self._failed
        self.samples.seconds = (time.monotonic_ns() - began) / 1e9
        self.samples.client_busy = (time.process_time() - cpu) / self.samples.seconds
        return self.samples


def call(
    port: int,
    request: bytes,
    *,
    clients: int,
    seconds: float = 3600.0,
    requests: int = 1 << 62,
    stagger_s: float = 0.0,
    streamed: bool = False,
) -> Samples:
    """Send ``request`` again and again, until ``seconds`` have passed or ``requests`` were sent.

    :raises RuntimeError: on an answer that does not come from the back end
    """

    async def go() -> Samples:
        load = _Load(request)
        return await load.run(
            _Stream if streamed else _Caller,
            port,
            clients=clients,
            seconds=seconds,
            requests=requests,
            stagger_s=stagger_s,
        )

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(go())


def render(path: str, body: bytes, headers: Sequence[tuple[str, str]] = ()) -> bytes:
    """The bytes of a JSON POST."""
    lines: list[Any] = [
        f"POST {path} HTTP/1.1",
        "host: 127.0.0.1",
        "content-type: application/json",
        f"content-length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def chat(*, tokens: int, stream: bool = False) -> bytes:
    """A request of about a kilobyte."""
    conversation = [
        {"role": "system", "content": "You describe pictures in one sentence. " * 8},
        {"role": "user", "content": "A red circle moves left, and a blue square waits for it. " * 8},
    ]
    body = {"model": MODEL, "messages": conversation, "max_tokens": tokens, "temperature": 0.5}
    return json.dumps({**body, "stream": True} if stream else body).encode()
