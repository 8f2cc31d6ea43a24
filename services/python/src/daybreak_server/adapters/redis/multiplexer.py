"""One connection for all coroutines of an event loop, on which commands are pipelined.

A connection for each call would cost more than the call itself: the call would take the connection from a pool, set a
timer for each read, and wake its coroutine twice. Here a call makes one future, and all calls in the same turn of the
event loop share one write. The server replies in order, so each reply belongs to the oldest pending call. A single
timer watches this oldest call. Later calls need no timer, because none of them can be answered earlier. When the
connection ends, all pending calls fail, and the next call makes a new connection.

redis-py still makes the connections, because it handles addresses, TLS and users. :class:`_Connection` then takes over
the transport.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis
import redis.asyncio
from redis import exceptions as failures

from daybreak_server.adapters.redis.scripts import Arg

Command = tuple[Arg, ...]
_pack = cast("Callable[[Command], bytes]", hiredis.pack_command)  # the type stub allows only 1-tuples


_DEMOTED = ("READONLY", "UNBLOCKED")
"""The errors of a master that has become a replica. The next connection finds the new master."""


class ServerError(failures.ResponseError):
    """An error reply of the server. Its message begins with its kind (``NOSCRIPT``, ``OOM``, …)."""


class _PendingCall:
    """Commands that wait for their replies, and the deadline of the replies."""

    __slots__ = ("count", "deadline", "future", "replies")

    def __init__(self, future: asyncio.Future[list[Any]], count: int, deadline: float) -> None:
        self.future = future
        self.count = count
        self.deadline = deadline
        self.replies: list[Any] = []


class _Connection(asyncio.Protocol):
    """An open connection."""

    def __init__(self, connection: Any, timeout_s: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.open = True
        self._connection = connection  # kept, because its destructor would close the transport
        self._timeout_s = timeout_s
        self._reader = hiredis.Reader(replyError=ServerError)
        self._pending: deque[_PendingCall] = deque()
        self._out: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._transport = cast("asyncio.Transport", connection._writer.transport)
        self._transport.set_protocol(self)
        self._transport.resume_reading()

    def execute(self, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        """Send commands. The result lists their replies in order. An error reply is listed as an exception."""
        now = self.loop.time()
        call = _PendingCall(self.loop.create_future(), len(commands), now + self._timeout_s)
        self._pending.append(call)
        if not self._out:
            # Commands of other calls in this turn of the event loop go out in the same write.
            self.loop.call_soon(self._flush)
        self._out.extend(_pack(command) for command in commands)
        if self._timer is None:
            self._timer = self.loop.call_at(call.deadline, self._check_timeout)
        return call.future

    def _flush(self) -> None:
        out, self._out = self._out, []
        if not self.open:
            return
        try:
            self._transport.write(b"".join(out))
        except RuntimeError as exc:  # uvloop, on a connection that was reset a moment ago
            self.end(failures.ConnectionError(str(exc)))

    def data_received(self, data: bytes) -> None:
        """Pass replies to the calls that wait for them."""
        reader, waiting = self._reader, self._pending
        try:
            reader.feed(data)
            while (reply := reader.gets()) is not False:
                call = waiting[0]
                call.replies.append(reply)
                if len(call.replies) == call.count:
                    waiting.popleft()
                    if not call.future.done():
                        call.future.set_result(call.replies)
                if type(reply) is ServerError and str(reply).startswith(_DEMOTED):
                    self.end(failures.ConnectionError("this master has become a replica"))
                    return
        except (hiredis.HiredisError, IndexError) as exc:
            self.end(failures.ConnectionError(f"Redis sent a reply that cannot be parsed: {exc!r}"))

    def _check_timeout(self) -> None:
        """End the connection if the oldest call has timed out. Later calls cannot have a reply either."""
        self._timer = None
        if not self._pending:
            return
        deadline = self._pending[0].deadline
        if self.loop.time() >= deadline:
            self.end(failures.TimeoutError(f"no reply within {self._timeout_s:g} s"))
        else:
            self._timer = self.loop.call_at(deadline, self._check_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called when the server closed the connection, and after :meth:`end`."""
        self.end(failures.ConnectionError(f"the connection was lost: {exc or 'closed by the server'}"))

    def end(self, error: Exception) -> None:
        """Close the connection; all pending calls raise ``error``."""
        self.open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._pending:
            call = self._pending.popleft()
            if not call.future.done():
                call.future.set_exception(type(error)(*error.args))
        if not self.loop.is_closed():
            self._transport.abort()
        # With these references, the destructor of redis-py's connection would warn that the connection is open.
        self._connection._writer = self._connection._reader = None


class Multiplexer:
    """Executes commands on one connection. The first call opens it, and so does the first call after it was lost."""

    def __init__(self, client: redis.asyncio.Redis, *, timeout_s: float) -> None:
        self._pool = client.connection_pool
        self._timeout_s = timeout_s
        self._current: _Connection | None = None
        self._connecting = asyncio.Lock()

    async def execute(self, *commands: Command) -> list[Any]:
        """The replies in order. An error reply is listed as an exception, and not raised.

        :raises RedisError, OSError: when no connection can be made, or the connection ends before all replies have
            arrived. In the second case, any of the commands may have taken effect.
        """
        current = self._current
        if current is None or not current.open or current.loop is not asyncio.get_running_loop():
            current = await self._connect()
        return await current.execute(commands)

    async def _connect(self) -> _Connection:
        loop = asyncio.get_running_loop()
        if self._current is not None and self._current.loop is not loop:
            self._current, self._connecting = None, asyncio.Lock()
        async with self._connecting:
            if self._current is None or not self._current.open:
                connection: Any = self._pool.make_connection()  # type: ignore[no-untyped-call]
                await connection.connect()
                self._current = _Connection(connection, self._timeout_s)
            return self._current

    async def close(self) -> None:
        """Close the connection."""
        current, self._current = self._current, None
        if current is not None:
            current.end(failures.ConnectionError("the store is closed"))
