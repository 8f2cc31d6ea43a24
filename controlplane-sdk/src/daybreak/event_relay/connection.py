"""The relay's connections to Redis, and which of their errors are temporary."""

from __future__ import annotations

import re
from typing import Any, cast

import redis.asyncio
from redis import exceptions as failures
from redis.backoff import NoBackoff

from daybreak.errors import ConfigError, DaybreakError, UnreachableError

try:
    import hiredis
except ImportError:  # Without hiredis, redis-py packs commands in Python.
    hiredis = None  # type: ignore[assignment]

_TEMPORARY_REPLIES = re.compile(r"\b(MISCONF|BUSY|LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|OOM)\b")
_OUTAGES = (
    failures.ConnectionError,
    failures.TimeoutError,
    failures.ReadOnlyError,
    failures.ClusterDownError,
    failures.TryAgainError,
    failures.OutOfMemoryError,
    OSError,
)


def connect(url: str, *, read_timeout_s: float, connect_timeout_s: float) -> Any:
    """A client that never retries by itself, because a repeated read would skip the events of a lost reply."""
    # A Unix socket has no keepalive, and redis-py rejects the option for it.
    keepalive: dict[str, Any] = {} if url.startswith("unix:") else {"socket_keepalive": True}
    client = redis.asyncio.Redis.from_url(
        url,
        retry=redis.asyncio.retry.Retry(NoBackoff(), 0),
        socket_timeout=read_timeout_s,
        socket_connect_timeout=connect_timeout_s,
        **keepalive,
        protocol=2,
        decode_responses=True,
    )
    # The client returns entries unparsed, and `event_relay/entries.py` parses each of them once.
    for command in ("XREADGROUP", "XAUTOCLAIM"):
        client.set_response_callback(command, cast("Any", _unparsed))
    if hiredis is not None:  # hiredis packs an `XACK` of a thousand ids in C.
        pool: Any = client.connection_pool
        pool.connection_class = type("HiredisPacked", (pool.connection_class,), {"pack_command": _pack})
    return client


def is_temporary(error: Exception) -> bool:
    """Whether Redis is down, fails over, loads its data or is full, so that the same command may succeed later."""
    return isinstance(error, _OUTAGES) or _TEMPORARY_REPLIES.search(str(error)) is not None


def translate_error(error: Exception) -> DaybreakError:
    """Convert redis-py's error to an error of this package."""
    # If a login over a Unix socket fails, redis-py puts the error inside another one.
    if error.args and isinstance(error.args[0], failures.RedisError):
        error = error.args[0]
    rejected = isinstance(error, failures.AuthenticationError | failures.AuthorizationError)
    if isinstance(error, _OUTAGES) and not rejected:
        return UnreachableError(f"Redis cannot be reached: {error}")
    return ConfigError(f"Redis rejects the relay: {error}")


def _unparsed(response: Any, **_options: Any) -> Any:
    return response


def _pack(_connection: object, *command: Any) -> list[bytes]:
    name, *arguments = command
    words = name.split() if isinstance(name, str) else [name]  # "XINFO STREAM" is two words
    return [hiredis.pack_command((*words, *arguments))]
