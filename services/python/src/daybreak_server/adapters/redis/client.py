"""Connects to Redis, runs scripts, and translates Redis's errors into those of ``ports.store_errors``.

``Scripts`` is for threads, ``AsyncScripts`` for coroutines. Both call functions of Daybreak's function library. If
the server lacks the library, they load it. If the library cannot be loaded, they fall back to ``EVAL``.

A command whose reply was lost may have taken effect. So a call is retried only with ``idempotent=True``, which callers
pass only if a repeated call has the same result as the first.
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

from daybreak_server.adapters.redis import changes
from daybreak_server.adapters.redis.changes import without_changes
from daybreak_server.adapters.redis.endpoint import Endpoint
from daybreak_server.adapters.redis.multiplexer import Multiplexer
from daybreak_server.adapters.redis.scripts import Arg, Call, FunctionLibrary, Script
from daybreak_server.domain.changes import OnChange
from daybreak_server.ports.store_errors import (
    StoreError,
    StoreFullError,
    StoreRefusedError,
    StoreUnavailableError,
)

T = TypeVar("T")

OnCall = Callable[[str, float, bool], None]
"""Gets the name of a script, the seconds that a call took, and whether the call succeeded. Must not raise."""

RETRY_PAUSES_S = (0.05, 0.25)
"""The pauses before the retries of an idempotent call."""
REPLICATION_TIMEOUT_S = 0.5
"""How long replicas may take to receive a submitted task."""

_UNAVAILABLE = (
    "MISCONF",
    "READONLY",
    "LOADING",
    "BUSY",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "TRYAGAIN",
    "UNBLOCKED",  # a master became a replica during a blocking call
    "NOREPLICAS",
)
_LOGIN_REFUSED = ("NOAUTH", "WRONGPASS")
_REFUSED_IN_SCRIPT = ("ACL failure in script", "user executing the script can't")
"""Parts of error messages. Servers send one of these if they refuse a command inside a script."""
_CLOSED = "the handler is closed"
"""If a connection was reset, a write to it makes uvloop raise a plain RuntimeError. Its message ends with this."""


def translate(exc: BaseException) -> StoreError:
    """The port's error for an error of redis-py."""
    exc = _unwrapped(exc)
    message = str(exc)
    if isinstance(exc, failures.OutOfMemoryError) or message.startswith("OOM") or "-OOM" in message:
        return StoreFullError(
            "Redis has reached its maxmemory: it accepts no new tasks, sessions or audio; running tasks continue"
        )
    if any(sign in message for sign in _REFUSED_IN_SCRIPT):
        return StoreRefusedError(f"Redis does not permit the user to run a command: {message}")
    if isinstance(exc, failures.AuthenticationError | failures.AuthorizationError) or message.startswith(
        _LOGIN_REFUSED
    ):
        return StoreRefusedError(f"Redis refuses the user or the password: {message}")
    if isinstance(exc, failures.ConnectionError | failures.TimeoutError | OSError):
        return StoreUnavailableError(f"Redis cannot be reached or did not answer in time: {message or exc!r}")
    if message.startswith(_UNAVAILABLE):
        return StoreUnavailableError(f"Redis cannot serve this call right now: {message}")
    return StoreError(f"Redis answered with an error: {message or exc!r}")


def _unwrapped(exc: BaseException) -> BaseException:
    """The error inside a ConnectionError: on a Unix socket, redis-py wraps login errors in one."""
    inner = exc.args[0] if isinstance(exc, failures.ConnectionError) and exc.args else None
    return inner if isinstance(inner, failures.RedisError) else exc


def is_library_missing(exc: Exception) -> bool:
    """Whether the server lacks the library. This is so on a new server, and after Daybreak's version has changed."""
    return "Function not found" in str(exc)


@contextmanager
def translated() -> Iterator[None]:
    """Translate errors of redis-py into those of the port. :raises StoreError: in place of an error of redis-py."""
    try:
        yield
    except (failures.RedisError, OSError) as exc:
        raise translate(exc) from exc
    except RuntimeError as exc:
        if not str(exc).endswith(_CLOSED):
            raise
        raise StoreUnavailableError(f"Redis cannot be reached: {exc}") from exc


def _ignore(_script: str, _seconds: float, _succeeded: bool) -> None:
    return None


def connect(where: str | Endpoint, *, timeout_s: float) -> redis.Redis:
    """A thread-safe client with a connection pool. It never retries a command by itself."""
    return redis.Redis.from_pool(Endpoint.of(where).pool(timeout_s=timeout_s))


def connect_async(where: str | Endpoint, *, timeout_s: float) -> redis.asyncio.Redis:
    """A client for coroutines, with a connection pool. It never retries a command by itself."""
    return redis.asyncio.Redis.from_pool(Endpoint.of(where).async_pool(timeout_s=timeout_s))


class Scripts:
    """Runs scripts from threads.

    ``on_call`` gets the name of the script, the seconds and the success of each call. ``on_change`` gets the changes of
    state that a script reports.
    """

    def __init__(
        self,
        client: redis.Redis,
        library: FunctionLibrary,
        *,
        on_call: OnCall | None = None,
        on_change: OnChange = changes.ignore,
    ) -> None:
        self._client = client
        self._library = library
        self._on_call = on_call or _ignore
        self._on_change = on_change

    def call(self, call: Call, *, idempotent: bool = False) -> Any:
        """The script's reply. :raises StoreError:"""
        for pause in (*(RETRY_PAUSES_S if idempotent else ()), None):
            try:
                with translated():
                    reply = self._run(self._library.get(call.script), call)
                return without_changes(reply, self._on_change)
            except StoreUnavailableError:
                if pause is None:
                    raise
                time.sleep(pause)
        raise AssertionError("not reached")

    def _run(self, script: Script, call: Call) -> Any:
        began, succeeded = time.perf_counter(), False
        try:
            reply = self._send(script, call)
            succeeded = True
            return reply
        finally:
            self._on_call(script.name, time.perf_counter() - began, succeeded)

    def _send(self, script: Script, call: Call) -> Any:
        operands = (1, call.keys.base, *call.args)
        try:
            return self._execute("FCALL", script.function, *operands)
        except failures.ResponseError as exc:
            if not is_library_missing(exc):
                raise
        try:
            self._execute("FUNCTION", "LOAD", "REPLACE", self._library.text)
        except failures.ResponseError:
            # There is no memory or no permission to load the library. EVAL is slower, but works.
            return self._execute("EVAL", script.text, *operands)
        return self._execute("FCALL", script.function, *operands)

    def _execute(self, *command: Arg) -> Any:
        """Run one command on a connection from the pool. This costs half as much as redis-py's ``execute_command``."""
        pool = self._client.connection_pool
        connection: Any = pool.get_connection()
        try:
            connection.send_packed_command(
                [hiredis.pack_command(command)],  # type: ignore[arg-type]  # the stub allows only one item
                check_health=False,
            )
            return connection.read_response()
        except failures.ResponseError:
            raise
        except BaseException:  # a late reply must not be mistaken for the reply to the next command
            connection.disconnect()
            raise
        finally:
            pool.release(connection)


class AsyncScripts:
    """Runs scripts from coroutines.

    ``wait_replicas``: a ``submit`` succeeds only once this many replicas have the task. ``on_call`` and ``on_change``
    are the same as for :class:`Scripts`.
    """

    def __init__(
        self,
        client: redis.asyncio.Redis,
        library: FunctionLibrary,
        *,
        wait_replicas: int = 0,
        on_call: OnCall | None = None,
        on_change: OnChange = changes.ignore,
    ) -> None:
        timeout_s: float = client.connection_pool.connection_kwargs["socket_timeout"]
        self._shared = Multiplexer(client, timeout_s=timeout_s)
        self._library = library
        self._replicas = wait_replicas
        self._on_call = on_call or _ignore
        self._on_change = on_change
        # WAIT delays all later commands on its connection, so submits have a connection of their own.
        self._submits = Multiplexer(client, timeout_s=timeout_s) if wait_replicas else self._shared

    async def close(self) -> None:
        """Close the connections that all calls share."""
        await self._shared.close()
        await self._submits.close()

    async def call(self, call: Call, *, idempotent: bool = False) -> Any:
        """The script's reply. :raises StoreError:"""
        reply = await self.perform(
            lambda: self._run(self._library.get(call.script), call), idempotent=idempotent
        )
        return without_changes(reply, self._on_change)

    async def perform(self, action: Callable[[], Awaitable[T]], *, idempotent: bool) -> T:
        """Perform ``action``, and translate its errors. An idempotent action is retried up to twice.

        :raises StoreError: if the last try fails.
        """
        for pause in (*(RETRY_PAUSES_S if idempotent else ()), None):
            try:
                with translated():
                    return await action()
            except StoreUnavailableError:
                if pause is None:
                    raise
                await asyncio.sleep(pause)
        raise AssertionError("not reached")

    async def _run(self, script: Script, call: Call) -> Any:
        began = time.perf_counter()
        try:
            reply = await self._send(script, call)
        except asyncio.CancelledError:  # a cancelled call does not show whether the script succeeded
            raise
        except BaseException:
            self._on_call(script.name, time.perf_counter() - began, False)
            raise
        self._on_call(script.name, time.perf_counter() - began, True)
        return reply

    async def _send(self, script: Script, call: Call) -> Any:
        operands = (1, call.keys.base, *call.args)
        execute = self._execute if call.script != "submit" or not self._replicas else self._execute_replicated
        reply = await execute("FCALL", script.function, *operands)
        if isinstance(reply, Exception) and is_library_missing(reply):
            loaded = await self._execute("FUNCTION", "LOAD", "REPLACE", self._library.text)
            if isinstance(loaded, Exception):
                # There is no memory or no permission to load the library. EVAL is slower, but works.
                reply = await execute("EVAL", script.text, *operands)
            else:
                reply = await execute("FCALL", script.function, *operands)
        if isinstance(reply, Exception):
            raise reply
        return reply

    async def _execute(self, *command: Arg) -> Any:
        (reply,) = await self._shared.execute(command)
        return reply

    async def _execute_replicated(self, *command: Arg) -> Any:
        """Run one command, and fail unless enough replicas have received the write."""
        wait = ("WAIT", self._replicas, round(REPLICATION_TIMEOUT_S * 1000))
        reply, replicas = await self._submits.execute(command, wait)
        if isinstance(reply, Exception):
            return reply
        if isinstance(replicas, Exception):
            raise replicas
        if replicas < self._replicas:
            raise StoreUnavailableError(
                f"Redis stored the task, but only {replicas} of {self._replicas} replicas have it "
                "(redis.wait_replicas), so a failover now could lose it; submit it again"
            )
        return reply
