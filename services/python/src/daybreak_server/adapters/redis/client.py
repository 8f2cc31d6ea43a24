"""Connections to Redis, running scripts on them, and its errors in the words of the port.

Nothing here is retried unless the caller says that a repeated call is answered as the first (``again``): a
command whose answer was lost may have been done.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import hiredis
import redis
import redis.asyncio
from redis import exceptions as failures

from daybreak_server.adapters.redis.endpoint import Endpoint
from daybreak_server.adapters.redis.multiplexer import Multiplexer
from daybreak_server.adapters.redis.scripts import Arg, Call, Library, Script
from daybreak_server.ports.store_errors import (
    StoreError,
    StoreFullError,
    StoreRefusedError,
    StoreUnavailableError,
)

T = TypeVar("T")

AGAIN_AFTER_S = (0.05, 0.25)
"""Pauses before a call that may be repeated is repeated."""
REPLICAS_WITHIN_S = 0.5
"""How long replicas may take to have what was submitted."""

_UNAVAILABLE = (
    "MISCONF",
    "READONLY",
    "LOADING",
    "BUSY",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "TRYAGAIN",
    "UNBLOCKED",  # a master has become a replica while somebody waited there
    "NOREPLICAS",
)
_REFUSED = ("NOAUTH", "WRONGPASS", "NOPERM")
_CLOSED = "the handler is closed"
"""What uvloop says, as a plain RuntimeError, when something is sent on a connection that was reset."""


def translate(exc: BaseException) -> StoreError:
    """The port's error for one of the client's."""
    exc = _unwrapped(exc)
    message = str(exc)
    if isinstance(exc, failures.OutOfMemoryError) or message.startswith("OOM") or "-OOM" in message:
        return StoreFullError("Redis has reached its maxmemory: no new tasks for now; running tasks go on")
    if isinstance(exc, failures.AuthenticationError | failures.AuthorizationError) or message.startswith(
        _REFUSED
    ):
        return StoreRefusedError(f"Redis refuses the user or the password: {message}")
    if isinstance(exc, failures.ConnectionError | failures.TimeoutError | OSError):
        return StoreUnavailableError(f"Redis cannot be reached or did not answer in time: {message or exc!r}")
    if message.startswith(_UNAVAILABLE):
        return StoreUnavailableError(f"Redis refuses for now: {message}")
    return StoreError(f"Redis answered with an error: {message or exc!r}")


def _unwrapped(exc: BaseException) -> BaseException:
    """On a Unix socket, redis-py logs in while it connects, and wraps whatever the server answers to that."""
    inner = exc.args[0] if isinstance(exc, failures.ConnectionError) and exc.args else None
    return inner if isinstance(inner, failures.RedisError) else exc


def is_unknown(exc: Exception) -> bool:
    """Whether the server does not have the library: a new server, or a new version of ours."""
    return "Function not found" in str(exc)


@contextmanager
def translated() -> Iterator[None]:
    """Raise the port's errors instead of the client's."""
    try:
        yield
    except (failures.RedisError, OSError) as exc:
        raise translate(exc) from exc
    except RuntimeError as exc:
        if not str(exc).endswith(_CLOSED):
            raise
        raise StoreUnavailableError(f"Redis cannot be reached: {exc}") from exc


def connect(where: str | Endpoint, *, timeout_s: float) -> redis.Redis:
    """A thread-safe client (a pool of connections) that never repeats a command by itself."""
    return redis.Redis.from_pool(Endpoint.of(where).pool(timeout_s=timeout_s))


def connect_async(where: str | Endpoint, *, timeout_s: float) -> redis.asyncio.Redis:
    """The same for coroutines."""
    return redis.asyncio.Redis.from_pool(Endpoint.of(where).async_pool(timeout_s=timeout_s))


class Scripts:
    """Runs scripts from threads."""

    def __init__(self, client: redis.Redis, library: Library) -> None:
        self._client = client
        self._library = library

    def call(self, call: Call, *, again: bool = False) -> Any:
        """What the script answers. :raises StoreError:"""
        for pause in (*(AGAIN_AFTER_S if again else ()), None):
            try:
                with translated():
                    return self._run(self._library.get(call.script), call)
            except StoreUnavailableError:
                if pause is None:
                    raise
                time.sleep(pause)
        raise AssertionError("not reached")

    def _run(self, script: Script, call: Call) -> Any:
        operands = (1, call.keys.base, *call.args)
        try:
            return self._ask("FCALL", script.function, *operands)
        except failures.ResponseError as exc:
            if not is_unknown(exc):
                raise
        try:
            self._ask("FUNCTION", "LOAD", "REPLACE", self._library.text)
        except failures.ResponseError:  # memory is full, or it may not: slower, but it works
            return self._ask("EVAL", script.text, *operands)
        return self._ask("FCALL", script.function, *operands)

    def _ask(self, *command: Arg) -> Any:
        """One command on a connection of the pool; half of what redis-py's own way to do so costs."""
        pool = self._client.connection_pool
        connection: Any = pool.get_connection()
        try:
            connection.send_packed_command(
                [hiredis.pack_command(command)],  # type: ignore[arg-type]  # its stub means one item
                check_health=False,
            )
            return connection.read_response()
        except failures.ResponseError:
            raise
        except BaseException:  # an answer may still come: it must not be taken for the next call's
            connection.disconnect()
            raise
        finally:
            pool.release(connection)


class AsyncScripts:
    """Runs scripts from coroutines.

    ``wait_replicas``: a ``submit`` counts only when so many replicas have it.
    """

    def __init__(self, client: redis.asyncio.Redis, library: Library, *, wait_replicas: int = 0) -> None:
        timeout_s: float = client.connection_pool.connection_kwargs["socket_timeout"]
        self._link = Multiplexer(client, timeout_s=timeout_s)
        self._library = library
        self._replicas = wait_replicas
        # WAIT holds up all that is asked after it on its connection, so it has one of its own.
        self._submits = Multiplexer(client, timeout_s=timeout_s) if wait_replicas else self._link

    async def close(self) -> None:
        """Close the connections that all calls share."""
        await self._link.close()
        await self._submits.close()

    async def call(self, call: Call, *, again: bool = False) -> Any:
        """What the script answers. :raises StoreError:"""
        return await self.repeat(lambda: self._run(self._library.get(call.script), call), again=again)

    async def repeat(self, action: Callable[[], Awaitable[T]], *, again: bool) -> T:
        """Run ``action`` with errors translated; once more after a pause or two if ``again``."""
        for pause in (*(AGAIN_AFTER_S if again else ()), None):
            try:
                with translated():
                    return await action()
            except StoreUnavailableError:
                if pause is None:
                    raise
                await asyncio.sleep(pause)
        raise AssertionError("not reached")

    async def _run(self, script: Script, call: Call) -> Any:
        operands = (1, call.keys.base, *call.args)
        ask = self._ask if call.script != "submit" or not self._replicas else self._ask_safely
        answer = await ask("FCALL", script.function, *operands)
        if isinstance(answer, Exception) and is_unknown(answer):
            loaded = await self._ask("FUNCTION", "LOAD", "REPLACE", self._library.text)
            if isinstance(loaded, Exception):  # memory is full, or it may not: slower, but it works
                answer = await ask("EVAL", script.text, *operands)
            else:
                answer = await ask("FCALL", script.function, *operands)
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _ask(self, *command: Arg) -> Any:
        (answer,) = await self._link.ask(command)
        return answer

    async def _ask_safely(self, *command: Arg) -> Any:
        """The same; an answer that counts is given only when enough replicas have what was written."""
        wait = ("WAIT", self._replicas, round(REPLICAS_WITHIN_S * 1000))
        answer, replicas = await self._submits.ask(command, wait)
        if isinstance(answer, Exception):
            return answer
        if isinstance(replicas, Exception):
            raise replicas
        if replicas < self._replicas:
            raise StoreUnavailableError(
                f"Redis has it, but only {replicas} of {self._replicas} replicas (redis.wait_replicas): "
                "a fail-over now could lose it"
            )
        return answer
