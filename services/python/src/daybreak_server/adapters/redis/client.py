"""Connections to Redis, running scripts on them, and its errors in the words of the port.

Nothing here is retried unless the caller says that a repeated call is answered as the first (``again``): a
command whose answer was lost may have been done.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import redis
import redis.asyncio
from redis import exceptions as failures
from redis.backoff import NoBackoff
from redis.retry import Retry

from daybreak_server.adapters.redis.scripts import Call, Library, Script
from daybreak_server.ports.store import StoreError, StoreFullError, StoreUnavailableError

T = TypeVar("T")

AGAIN_AFTER_S = (0.05, 0.25)
"""Pauses before a call that may be repeated is repeated."""

_UNAVAILABLE = (
    "MISCONF",
    "READONLY",
    "LOADING",
    "BUSY",
    "CLUSTERDOWN",
    "MASTERDOWN",
    "TRYAGAIN",
    "NOAUTH",
    "WRONGPASS",
)


_CLOSED = "the handler is closed"
"""What uvloop says, as a plain RuntimeError, when something is sent on a connection that was reset."""


def translate(exc: BaseException) -> StoreError:
    """The port's error for one of the client's."""
    message = str(exc)
    if isinstance(exc, failures.OutOfMemoryError) or message.startswith("OOM") or "-OOM" in message:
        return StoreFullError("Redis has reached its maxmemory: no new tasks for now; running tasks go on")
    if isinstance(exc, failures.ConnectionError | failures.TimeoutError | OSError):
        return StoreUnavailableError(f"Redis cannot be reached or did not answer in time: {message or exc!r}")
    if message.startswith(_UNAVAILABLE):
        return StoreUnavailableError(f"Redis refuses for now: {message}")
    return StoreError(f"Redis answered with an error: {message or exc!r}")


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


def _options(timeout_s: float) -> dict[str, Any]:
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "socket_keepalive": True,
        "protocol": 2,
    }


def connect(url: str, *, timeout_s: float) -> redis.Redis:
    """A thread-safe client (a pool of connections) that never repeats a command by itself."""
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **_options(timeout_s))


def connect_async(url: str, *, timeout_s: float) -> redis.asyncio.Redis:
    """The same for coroutines."""
    retry = redis.asyncio.retry.Retry(NoBackoff(), 0)
    return redis.asyncio.Redis.from_pool(_Pool.from_url(url, retry=retry, **_options(timeout_s)))


class _Pool(redis.asyncio.ConnectionPool):
    """Hands out no connection that was reset while it lay idle; its base looks for a clean end only."""

    async def ensure_connection(self, connection: Any) -> None:
        writer = getattr(connection, "_writer", None)
        if writer is not None and writer.transport.is_closing():
            await connection.disconnect(nowait=True)
        await super().ensure_connection(connection)


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
        try:
            return self._client.evalsha(script.sha, 1, call.keys.base, *call.args)
        except failures.NoScriptError:
            return self._client.eval(script.text, 1, call.keys.base, *call.args)


class AsyncScripts:
    """Runs scripts from coroutines."""

    def __init__(self, client: redis.asyncio.Redis, library: Library) -> None:
        self._client = client
        self._library = library

    async def call(self, call: Call, *, again: bool = False) -> Any:
        """What the script answers. :raises StoreError:"""
        return await self.repeat(lambda: self._run(self._library.get(call.script), call), again=again)

    async def batch(self, calls: Sequence[Call]) -> list[Any]:
        """Many calls of one script in one round trip, each atomic on its own; may be repeated as a whole.

        An item is what the script answered, or the :class:`StoreError` that the server answered.
        """
        if not calls:
            return []
        return await self.repeat(lambda: self._run_batch(calls), again=True)

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
        try:
            return await self._client.evalsha(script.sha, 1, call.keys.base, *call.args)
        except failures.NoScriptError:
            return await self._client.eval(script.text, 1, call.keys.base, *call.args)

    async def _run_batch(self, calls: Sequence[Call]) -> list[Any]:
        replies = await self._pipeline(calls)
        missing = [i for i, reply in enumerate(replies) if isinstance(reply, failures.NoScriptError)]
        if missing:  # those were not run at all
            await self._client.script_load(self._library.get(calls[0].script).text)
            for i, reply in zip(missing, await self._pipeline([calls[i] for i in missing]), strict=True):
                replies[i] = reply
        return [translate(reply) if isinstance(reply, Exception) else reply for reply in replies]

    async def _pipeline(self, calls: Sequence[Call]) -> list[Any]:
        async with self._client.pipeline(transaction=False) as pipe:
            for call in calls:
                pipe.evalsha(self._library.get(call.script).sha, 1, call.keys.base, *call.args)
            return await pipe.execute(raise_on_error=False)
