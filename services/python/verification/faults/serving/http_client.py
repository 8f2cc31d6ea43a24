"""A small HTTP client that records two facts that libraries hide: when an answer began, and whether the answer is
complete.

It shares no code with the gateway's client. An answer is complete only if it has as many bytes as ``Content-Length``
says, or if its last chunk has arrived. Every answer of Daybreak to a request of this client has a length or chunks, so
the client treats any other answer as an error.
"""

from __future__ import annotations

import asyncio
import time
import zlib
from dataclasses import dataclass, field

_READ_BYTES = 64 * 1024


class ProtocolError(Exception):
    """The answer is not valid HTTP."""


@dataclass(slots=True, kw_only=True)
class Received:
    """The answer to one request, complete or not."""

    first: float | None = None
    """The time at which the whole head had arrived, in monotonic seconds. If the connection broke within the head, the
    time at which it broke. ``None`` if no byte arrived."""
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    size: int = 0
    """How many bytes of the body arrived."""
    crc: int = 0
    """The CRC-32 of these bytes."""
    complete: bool = False
    error: str = ""
    """Why the answer is not complete."""
    body: bytes = b""
    """The body. Empty if the status is 200, because then the size and the CRC are enough."""


class Client:
    """A connection to one gateway. If the connection has closed, the next request opens it again."""

    def __init__(self, host: str, port: int) -> None:
        self._address = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def post(self, path: str, body: bytes, *, headers: dict[str, str], timeout_s: float) -> Received:
        """Send one request. A failure of the network is not raised; it is in :attr:`Received.error`."""
        received = Received()
        try:
            async with asyncio.timeout(timeout_s):
                await self._exchange(path, body, headers, received)
        except TimeoutError:
            received.error = "timeout"
        except (OSError, EOFError, ProtocolError) as exc:
            if isinstance(exc, asyncio.IncompleteReadError) and exc.partial and received.first is None:
                received.first = time.monotonic()
            received.error = f"{type(exc).__name__}: {exc}"
        if not received.complete or received.headers.get("connection", "").lower() == "close":
            self.close()
        return received

    @property
    def closed_by_server(self) -> bool:
        """Whether the server has closed the connection while it was idle."""
        return self._streams is not None and self._streams[0].at_eof()

    def close(self) -> None:
        """Close the connection."""
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None

    async def _exchange(self, path: str, body: bytes, headers: dict[str, str], received: Received) -> None:
        if self.closed_by_server:
            self.close()
        if self._streams is None:
            self._streams = await asyncio.open_connection(*self._address)
        reader, writer = self._streams
        lines = [f"POST {path} HTTP/1.1", f"Host: {self._address[0]}:{self._address[1]}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        lines += [f"Content-Length: {len(body)}", "", ""]
        writer.write("\r\n".join(lines).encode() + body)
        await writer.drain()
        head = await reader.readuntil(b"\r\n\r\n")
        received.first = time.monotonic()
        _parse_head(head, received)
        if received.headers.get("transfer-encoding") == "chunked":
            await _read_chunks(reader, received)
        elif "content-length" in received.headers:
            await _read(reader, int(received.headers["content-length"]), received)
        else:
            raise ProtocolError("the answer has neither a length nor chunks")
        received.complete = True


def _parse_head(head: bytes, received: Received) -> None:
    status, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    version, _, rest = status.partition(" ")
    if version != "HTTP/1.1" or not rest[:3].isdigit():
        raise ProtocolError(f"the answer begins with {status[:60]!r}")
    received.status = int(rest[:3])
    for line in lines:
        name, _, value = line.partition(":")
        received.headers[name.strip().lower()] = value.strip()


async def _read_chunks(reader: asyncio.StreamReader, received: Received) -> None:
    while True:
        line = (await reader.readuntil(b"\r\n")).strip()
        try:
            size = int(line, 16)
        except ValueError:
            raise ProtocolError(f"a chunk begins with {line[:60]!r}") from None
        await _read(reader, size, received)
        if await reader.readexactly(2) != b"\r\n":
            raise ProtocolError("a chunk does not end where it should")
        if size == 0:
            return


async def _read(reader: asyncio.StreamReader, size: int, received: Received) -> None:
    while size:
        data = await reader.read(min(size, _READ_BYTES))
        if not data:
            raise EOFError("the connection was closed in the middle of the answer")
        size -= len(data)
        received.size += len(data)
        received.crc = zlib.crc32(data, received.crc)
        if received.status != 200:
            received.body += data
