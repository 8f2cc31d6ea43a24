"""Sends the head of a response and its body with one system call.

uvicorn writes them one after the other, and uvloop hands each write to the kernel at once. For a small response the
second call costs about a tenth of the gateway's whole work, and the client wakes up twice. Here, the parts that are
written in the same iteration of the event loop are joined, and sent in the next iteration. The parts of a stream
usually come in different iterations, so each part is sent as it comes.

uvicorn also starts a timer after each response and cancels it at the next request. Here a connection has one timer.
When the timer fires, the connection is closed if it has been idle for the whole keep-alive time. If the connection has
been idle for less, the timer is set to the rest of that time. If a request is in progress, the timer is set when the
response is complete.
"""

from __future__ import annotations

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_BYTES = 64 * 1024
"""If more bytes are gathered, they are written at once, so that the transport can tell the writer to pause."""


class GatheringTransport(asyncio.Transport):
    """A transport that joins writes. Everything else goes to ``inner`` as it is."""

    def __init__(self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.inner = inner
        self._loop = loop
        self._parts: list[bytes] = []
        self._bytes = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write in the next iteration of the event loop, or now if more than ``MAX_BYTES`` are gathered."""
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(bytes(data))
        self._bytes += len(data)
        if self._bytes > MAX_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write the gathered data. If the connection has ended by now, drop the data, as asyncio's transports do."""
        if self._parts:
            joined = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self._parts.clear()
            self._bytes = 0
            if not self.inner.is_closing():
                self.inner.write(joined)

    def close(self) -> None:
        """Write the gathered data, then close."""
        self.flush()
        self.inner.close()

    def abort(self) -> None:
        """Close at once, and drop the gathered data."""
        self._parts.clear()
        self.inner.abort()

    def is_closing(self) -> bool:
        """Whether the transport is closing or closed."""
        return self.inner.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """What the transport knows about its connection."""
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
        """Give the inner transport to the protocol of WebSockets, which already writes whole frames."""
        if isinstance(self.transport, GatheringTransport):
            self.transport.flush()
            self.transport = self.transport.inner
        super().handle_websocket_upgrade()


class OneTimerProtocol(GatheringProtocol):
    """A :class:`GatheringProtocol` with one timer for each connection."""

    _idle_since: float | None = None
    """When the last response was complete, on the clock of the event loop; ``None`` while there is a request."""

    def connection_lost(self, exc: Exception | None) -> None:
        """Do what uvicorn does, and cancel the timer."""
        super().connection_lost(exc)
        if self.timeout_keep_alive_task is not None:
            self.timeout_keep_alive_task.cancel()
            self.timeout_keep_alive_task = None

    def on_response_complete(self) -> None:
        """Do what uvicorn does, except for the timer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
            return
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._close_idle_after(self.timeout_keep_alive)

    def timeout_keep_alive_handler(self) -> None:
        """Close the connection if it has been idle for long enough."""
        self.timeout_keep_alive_task = None
        if self._idle_since is None:
            return
        left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self._close_idle_after(left_s)
        else:
            super().timeout_keep_alive_handler()

    def _close_idle_after(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

    def _unset_keepalive_if_required(self) -> None:
        self._idle_since = None


_PRIVATE = ("_start_asgi_task", "_unset_keepalive_if_required")
"""Private methods of uvicorn's protocol that :class:`OneTimerProtocol` needs. Other versions may lack these methods."""


def protocol_on(uvicorn_protocol: type = HttpToolsProtocol) -> type[GatheringProtocol]:
    """The protocol for the installed uvicorn.

    If this uvicorn lacks a method that :class:`OneTimerProtocol` needs, the result is :class:`GatheringProtocol`, which
    keeps uvicorn's timers.
    """
    return (
        OneTimerProtocol if all(hasattr(uvicorn_protocol, name) for name in _PRIVATE) else GatheringProtocol
    )
