"""Sends the head of a response and its body with one call of the kernel.

uvicorn writes them one after the other, and uvloop hands each write to the kernel at once. For a small response the
second call costs as much as a tenth of all that the gateway does for it, and the client wakes up twice. Here the parts
that are written in the same turn of the event loop are joined, and written at the end of the turn. Parts of a stream
come one a turn, so each is sent as it comes.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_BYTES = 64 * 1024
"""More than this is written at once, so that the transport can tell the writer to pause."""


class GatheringTransport(asyncio.Transport):
    """A transport that joins writes. Everything else goes to ``inner`` as it is."""

    def __init__(self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.inner = inner
        self._loop = loop
        self._parts: list[bytes] = []
        self._bytes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write at the end of this turn, or now if much has come together."""
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(bytes(data))
        self._bytes += len(data)
        if self._bytes > MAX_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what has come together."""
        if self._parts:
            joined = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts.clear()
            self._bytes = 0
            self.inner.write(joined)

    def close(self) -> None:
        """Write what has come together, then close."""
        self.flush()
        self.inner.close()

    def abort(self) -> None:
        """Close at once."""
        self._parts.clear()
        self.inner.abort()

    def is_closing(self) -> bool:
        """Whether the transport is closing or closed."""
        return self.inner.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What the transport knows of its connection."""
        return self.inner.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """Read no more from the network."""
        self.inner.pause_reading()

    def resume_reading(self) -> None:
        """Read from the network again."""
        self.inner.resume_reading()


class GatheringProtocol(HttpToolsProtocol):
    """uvicorn's protocol, on a transport that joins writes."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to answer requests."""
        super().connection_made(GatheringTransport(cast("asyncio.Transport", transport), self.loop))

    def handle_websocket_upgrade(self) -> None:
        """Give the transport itself to the protocol of WebSockets, which writes whole frames."""
        if isinstance(self.transport, GatheringTransport):
            self.transport.flush()
            self.transport = self.transport.inner
        super().handle_websocket_upgrade()
