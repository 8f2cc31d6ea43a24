"""A TCP proxy that simulates network faults.

Its :class:`Conditions` apply to all connections, old and new, except that ``accepts`` concerns only new ones. For
each direction, the conditions have a :class:`Flow`:

* ``PASS``: bytes pass. The conditions may delay them and limit their rate.
* ``HOLD``: bytes wait. When the flow changes to ``PASS``, the bytes arrive, as with TCP after a partition.
* ``SWALLOW``: the proxy accepts bytes and drops them. From then on, the connection is dead in both directions but never
  ends, like a half-open connection.

``cut`` resets the open connections. ``lose_replies`` forwards a request, waits for the first byte of its reply and
resets the connection instead of forwarding the reply: the request took effect, but the client cannot know. One thread
runs an event loop with two pumps per connection, one per direction.
"""

from __future__ import annotations

import asyncio
import contextlib
import enum
import socket
import struct
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Self

_CHUNK = 65536
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of zero seconds: closing sends RST


class Flow(enum.Enum):
    """What happens to the bytes of one direction."""

    PASS = "pass"
    HOLD = "hold"
    """The bytes wait until the conditions change."""
    SWALLOW = "swallow"
    """The bytes are lost, and so is everything that follows them on the same connection."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """The state of the network. ``up`` is the direction to the server, ``down`` the direction to the client."""

    accepts: bool = True
    """``False``: new connections are reset at once."""
    up: Flow = Flow.PASS
    down: Flow = Flow.PASS
    latency_s: float = 0.0
    """Delay before each chunk, in each direction."""
    bytes_per_s: float | None = None
    """Limit for each direction of each connection; ``None``: no limit."""


NORMAL = Conditions()
PARTITION = Conditions(up=Flow.HOLD, down=Flow.HOLD)
HALF_OPEN = Conditions(up=Flow.SWALLOW, down=Flow.SWALLOW)
DOWN = Conditions(accepts=False)


@dataclass(slots=True)
class Counts:
    """What the proxy has done so far, in numbers."""

    accepted: int = 0
    refused: int = 0
    cut: int = 0
    lost_replies: int = 0
    swallowed_bytes: int = 0


@dataclass(eq=False, slots=True)
class _Link:
    """One connection through the proxy."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter | None = None
    losing: bool = False
    dead: bool = False
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def reset(self) -> None:
        """Reset both sides at once."""
        for side in (self.client, self.server):
            if side is not None:
                with contextlib.suppress(OSError):
                    side.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                side.transport.abort()


class TcpProxy:
    """Listens on 127.0.0.1 and forwards to ``upstream``. It runs in its own thread; call it from any other thread."""

    def __init__(self, upstream: tuple[str, int], *, port: int = 0) -> None:
        self._upstream = upstream
        self._conditions = NORMAL
        self._lose = 0
        self._lose_match = b""
        self._links: set[_Link] = set()
        self.counts = Counts()
        self._loop = asyncio.new_event_loop()
        self._changed = asyncio.Event()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._thread.start()
        self._server = self._call(self._listen(port))
        self.port: int = self._server.sockets[0].getsockname()[1]

    # ── called from tests ────────────────────────────────────────────────────────────────────────────────

    def set_conditions(self, conditions: Conditions) -> None:
        """Change the conditions of all connections."""
        self._loop.call_soon_threadsafe(self._change, conditions)
        self._call(_nothing())

    def heal(self) -> None:
        """Everything passes again; connections that have lost bytes stay dead."""
        self.set_conditions(NORMAL)

    def cut(self) -> int:
        """Reset the open connections. :returns: how many there were."""
        return int(self._call(self._cut()))

    def lose_replies(self, count: int, *, match: bytes = b"") -> None:
        """Lose the replies to the next ``count`` requests that contain ``match``."""

        def do() -> None:
            self._lose, self._lose_match = count, match

        self._loop.call_soon_threadsafe(do)
        self._call(_nothing())

    @property
    def open(self) -> int:
        """The number of open connections."""
        return len(self._links)

    def close(self) -> None:
        """Reset all connections and stop the proxy."""
        self._call(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ── on the event loop ────────────────────────────────────────────────────────────────────────────────

    def _call(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    async def _end(self) -> None:
        self._server.close()  # on the event loop, because an asyncio server is not thread-safe
        await self._cut()

    def _change(self, conditions: Conditions) -> None:
        self._conditions = conditions
        self._changed.set()
        self._changed = asyncio.Event()

    async def _listen(self, port: int) -> asyncio.Server:
        return await asyncio.start_server(self._accept, "127.0.0.1", port, backlog=1024)

    async def _cut(self) -> int:
        links = list(self._links)
        for link in links:
            link.reset()
            for task in link.tasks:
                task.cancel()
        self.counts.cut += len(links)
        await asyncio.gather(*(task for link in links for task in link.tasks), return_exceptions=True)
        return len(links)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        link = _Link(writer)
        if not self._conditions.accepts:
            self.counts.refused += 1
            link.reset()
            return
        self.counts.accepted += 1
        current = asyncio.current_task()
        assert current is not None
        link.tasks.append(current)
        self._links.add(link)
        try:
            await self._serve(link, reader)
        except (OSError, asyncio.CancelledError):
            link.reset()
        finally:
            self._links.discard(link)

    async def _serve(self, link: _Link, reader: asyncio.StreamReader) -> None:
        while self._conditions.up is Flow.HOLD:
            await self._changed.wait()
        if self._conditions.up is Flow.SWALLOW:  # the server never sees this connection
            link.dead = True
            await self._pump(link, reader, None, lambda: self._conditions.up)
            return
        back, link.server = await asyncio.open_connection(*self._upstream)
        pumps = [
            asyncio.create_task(self._pump(link, reader, link.server, lambda: self._conditions.up)),
            asyncio.create_task(
                self._pump(link, back, link.client, lambda: self._conditions.down, down=True)
            ),
        ]
        link.tasks += pumps
        await asyncio.gather(*pumps)
        link.server.close()
        link.client.close()

    async def _pump(
        self,
        link: _Link,
        source: asyncio.StreamReader,
        target: asyncio.StreamWriter | None,
        flow: Callable[[], Flow],
        *,
        down: bool = False,
    ) -> None:
        while data := await source.read(_CHUNK):
            if down and link.losing:
                self.counts.lost_replies += 1
                link.reset()
                raise ConnectionResetError
            while flow() is Flow.HOLD:
                await self._changed.wait()
            if link.dead or flow() is Flow.SWALLOW:
                link.dead = True
                self.counts.swallowed_bytes += len(data)
                continue
            if not down and self._lose > 0 and self._lose_match in data:
                self._lose -= 1
                link.losing = True
            if target is not None:
                await self._send(target, data)
        if link.dead:  # the other side must not see that this side has ended
            await asyncio.Event().wait()
        while flow() is Flow.HOLD:
            await self._changed.wait()
        if target is not None and target.can_write_eof():
            target.write_eof()

    async def _send(self, target: asyncio.StreamWriter, data: bytes) -> None:
        conditions = self._conditions
        if conditions.latency_s:
            await asyncio.sleep(conditions.latency_s)
        if conditions.bytes_per_s is None:
            target.write(data)
            await target.drain()
            return
        size = max(1, int(conditions.bytes_per_s / 20))
        for start in range(0, len(data), size):
            chunk = data[start : start + size]
            target.write(chunk)
            await target.drain()
            await asyncio.sleep(len(chunk) / conditions.bytes_per_s)


async def _nothing() -> None:
    """Do nothing. When this has run on the event loop, all callbacks scheduled before it have run too."""
