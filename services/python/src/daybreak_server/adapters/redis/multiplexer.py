"""One connection for all coroutines of a loop: what they ask goes out together, and answers come back in order.

A connection of its own for each call costs more than the call: taking it from a pool, guarding each read with a
timer, waking twice. Here a call is one write, often shared, and one future. redis-py still makes the connection
(addresses, TLS, users), so nothing of that is said twice.
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
_pack = cast("Callable[[Command], bytes]", hiredis.pack_command)  # its own types know pairs only


_DEMOTED = ("READONLY", "UNBLOCKED")
"""How a master that has become a replica answers: the next connection finds the new master."""


class ServerError(failures.ResponseError):
    """What the server answered instead; its words begin with their kind (``NOSCRIPT``, ``OOM``, …)."""


class _PendingReply:
    """Commands that wait for their answers."""

    __slots__ = ("answers", "count", "future", "until")

    def __init__(self, future: asyncio.Future[list[Any]], count: int, until: float) -> None:
        self.future = future
        self.count = count
        self.until = until
        self.answers: list[Any] = []


class _Wire(asyncio.Protocol):
    """An open connection."""

    def __init__(self, connection: Any, timeout_s: float) -> None:
        self.loop = asyncio.get_running_loop()
        self.open = True
        self._connection = connection  # kept, as its end would close what is used here
        self._timeout_s = timeout_s
        self._reader = hiredis.Reader(replyError=ServerError)
        self._asked: deque[_PendingReply] = deque()
        self._out: list[bytes] = []
        self._timer: asyncio.TimerHandle | None = None
        self._transport = cast("asyncio.Transport", connection._writer.transport)
        self._transport.set_protocol(self)
        self._transport.resume_reading()

    def ask(self, commands: Sequence[Command]) -> asyncio.Future[list[Any]]:
        """The answers, in order; one that is an error is an exception among them."""
        now = self.loop.time()
        asked = _PendingReply(self.loop.create_future(), len(commands), now + self._timeout_s)
        self._asked.append(asked)
        if not self._out:
            # What others ask in this turn of the loop goes out in the same write.
            self.loop.call_soon(self._flush)
        self._out.extend(_pack(command) for command in commands)
        if self._timer is None:
            self._timer = self.loop.call_at(asked.until, self._late)
        return asked.future

    def _flush(self) -> None:
        out, self._out = self._out, []
        if not self.open:
            return
        try:
            self._transport.write(b"".join(out))
        except RuntimeError as exc:  # uvloop, on a connection that was reset a moment ago
            self.end(failures.ConnectionError(str(exc)))

    def data_received(self, data: bytes) -> None:
        """Hand answers to who asked."""
        reader, waiting = self._reader, self._asked
        try:
            reader.feed(data)
            while (answer := reader.gets()) is not False:
                asked = waiting[0]
                asked.answers.append(answer)
                if len(asked.answers) == asked.count:
                    waiting.popleft()
                    if not asked.future.done():
                        asked.future.set_result(asked.answers)
                if type(answer) is ServerError and str(answer).startswith(_DEMOTED):
                    self.end(failures.ConnectionError("this master has become a replica"))
                    return
        except (hiredis.HiredisError, IndexError) as exc:
            self.end(failures.ConnectionError(f"an answer that cannot be read: {exc!r}"))

    def _late(self) -> None:
        """Whether the oldest question waits for too long. Those behind it cannot have an answer either."""
        self._timer = None
        if not self._asked:
            return
        until = self._asked[0].until
        if self.loop.time() >= until:
            self.end(failures.TimeoutError(f"no answer within {self._timeout_s:g} s"))
        else:
            self._timer = self.loop.call_at(until, self._late)

    def connection_lost(self, exc: Exception | None) -> None:
        """The other end is gone, or :meth:`end` was called."""
        self.end(failures.ConnectionError(f"the connection was lost: {exc or 'closed by the server'}"))

    def end(self, error: Exception) -> None:
        """Close; all who wait get ``error``."""
        self.open = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._asked:
            asked = self._asked.popleft()
            if not asked.future.done():
                asked.future.set_exception(type(error)(*error.args))
        if not self.loop.is_closed():
            self._transport.abort()
        self._connection._writer = self._connection._reader = None  # or it would say that it was forgotten


class Multiplexer:
    """Asks over one connection, which is made when it is first needed and again after it was lost."""

    def __init__(self, client: redis.asyncio.Redis, *, timeout_s: float) -> None:
        self._pool = client.connection_pool
        self._timeout_s = timeout_s
        self._wire: _Wire | None = None
        self._connecting = asyncio.Lock()

    async def ask(self, *commands: Command) -> list[Any]:
        """The answers, in order; one that is an error is an exception among them.

        :raises RedisError, OSError: when there is no connection, or it ends before all answers are there. Then
            any of the commands may have been done.
        """
        wire = self._wire
        if wire is None or not wire.open or wire.loop is not asyncio.get_running_loop():
            wire = await self._connect()
        return await wire.ask(commands)

    async def _connect(self) -> _Wire:
        loop = asyncio.get_running_loop()
        if self._wire is not None and self._wire.loop is not loop:
            self._wire, self._connecting = None, asyncio.Lock()
        async with self._connecting:
            if self._wire is None or not self._wire.open:
                connection: Any = self._pool.make_connection()  # type: ignore[no-untyped-call]
                await connection.connect()
                self._wire = _Wire(connection, self._timeout_s)
            return self._wire

    async def close(self) -> None:
        """Let the connection go."""
        wire, self._wire = self._wire, None
        if wire is not None:
            wire.end(failures.ConnectionError("the store is closed"))
