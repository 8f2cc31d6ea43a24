"""How to connect to Redis: to a single server (TCP, TLS or a Unix socket), or to the master that Sentinel names.

Every connection of the store is made here. With Sentinel, each new connection asks for the master's address, so a
process that loses its connection in a failover finds the new master by itself. Calls during the failover fail as they
do while a single server restarts.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import redis
import redis.asyncio
import redis.asyncio.sentinel as async_sentinel
import redis.sentinel as sync_sentinel
from redis.asyncio.connection import parse_url
from redis.backoff import NoBackoff
from redis.retry import Retry

from daybreak_server.adapters.redis.credentials import FilePassword

if TYPE_CHECKING:  # the watchdog, which starts with every group, imports this module but no settings
    from daybreak_server.settings.stores import RedisSettings

CONNECT_TIMEOUT_S = 2.0
"""How long a new connection may take. While a Redis pod or its host is being replaced, packets to the old address get
no answer. If an attempt gives up early, the next one can reach the new address before the lease ends."""
SENTINEL_TIMEOUT_S = 1.0
"""How long one Sentinel may take to name the master before the next one is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Everything that a process must know to connect to Redis. It can be stored as JSON."""

    url: str
    """``redis://``, ``rediss://`` (TLS) or ``unix://``, with user, password and database. With Sentinel, the host is
    ignored."""
    ca_file: str | None = None
    """The file with the certificate authorities that the client trusts; ``None`` means those of the system."""
    cert_file: str | None = None
    key_file: str | None = None
    sentinels: tuple[str, ...] = ()
    """``host:port`` of each Sentinel."""
    sentinel_master: str = ""
    sentinel_password: str | None = None
    password_file: str | None = None
    """The file with the password, if the URL has no password. The file is read for each new connection."""
    sentinel_password_file: str | None = None
    wait_replicas: int = 0
    """A submit succeeds only once this many replicas of the Redis server have the task."""

    @classmethod
    def of(cls, where: str | Mapping[str, Any] | Endpoint) -> Endpoint:
        """An endpoint from a URL, or from the output of :func:`dataclasses.asdict`."""
        if isinstance(where, Endpoint):
            return where
        if isinstance(where, str):
            return cls(url=where)
        return cls(**{**where, "sentinels": tuple(where.get("sentinels", ()))})

    @classmethod
    def configured(cls, settings: RedisSettings) -> Endpoint:
        """The endpoint in the settings. :raises ValueError: when they name no Redis."""
        if settings.url is None:
            raise ValueError("the settings name no Redis; set redis.url")
        return cls(
            url=settings.url,
            ca_file=settings.ca_file,
            cert_file=settings.cert_file,
            key_file=settings.key_file,
            sentinels=settings.sentinels,
            sentinel_master=settings.sentinel_master or "",
            sentinel_password=settings.sentinel_password,
            password_file=settings.password_file,
            sentinel_password_file=settings.sentinel_password_file,
            wait_replicas=settings.wait_replicas,
        )

    @property
    def tls(self) -> bool:
        """Whether connections are encrypted, including those to Sentinel."""
        return self.url.startswith("rediss:")

    def pool(self, *, timeout_s: float) -> redis.ConnectionPool:
        """A connection pool for threads. It never repeats a command by itself."""
        no_retry = Retry(NoBackoff(), 0)
        options = {**self._options(timeout_s), **self._certificates(), **self._file(), "retry": no_retry}
        if not self.sentinels:
            return redis.ConnectionPool.from_url(self._address(), **options)
        sentinels = _Sentinels(self._sentinels(), sentinel_kwargs=self._for_sentinels(no_retry))  # type: ignore[no-untyped-call]
        return _MasterPool(self.sentinel_master, sentinels, **options, **self._login())  # type: ignore[no-untyped-call]

    def async_pool(self, *, timeout_s: float) -> redis.asyncio.ConnectionPool:
        """A pool for coroutines; otherwise as :meth:`pool`."""
        no_retry = redis.asyncio.retry.Retry(NoBackoff(), 0)
        options = {**self._options(timeout_s), **self._certificates(), **self._file(), "retry": no_retry}
        if not self.sentinels:
            return _Pool.from_url(self._address(), **options)
        sentinels = _AsyncSentinels(self._sentinels(), sentinel_kwargs=self._for_sentinels(no_retry))  # type: ignore[no-untyped-call]
        return _AsyncMasterPool(self.sentinel_master, sentinels, **options, **self._login())  # type: ignore[no-untyped-call]

    def sentinel(self, address: str) -> redis.asyncio.Redis:
        """A client for one of the Sentinels."""
        host, port = _split(address)
        no_retry = redis.asyncio.retry.Retry(NoBackoff(), 0)
        return redis.asyncio.Redis(host=host, port=port, **self._for_sentinels(no_retry))

    def _options(self, timeout_s: float) -> dict[str, Any]:
        """Options of every connection. redis-py refuses ``socket_keepalive`` for Unix sockets."""
        options = _options(timeout_s)
        if self.url.startswith("unix:"):
            del options["socket_keepalive"]
        return options

    def _certificates(self) -> dict[str, Any]:
        """TLS options from the URL and the files. Connections to Sentinels use them too."""
        if not self.tls:
            return {}
        in_url = {name: value for name, value in parse_url(self.url).items() if name.startswith("ssl_")}
        files = {"ca_certs": self.ca_file, "certfile": self.cert_file, "keyfile": self.key_file}
        return in_url | {f"ssl_{name}": file for name, file in files.items() if file is not None}

    def _file(self) -> dict[str, Any]:
        """The credentials, if the password is in a file."""
        if self.password_file is None:
            return {}
        user = unquote(urlsplit(self.url).username or "") or None
        return {"credential_provider": FilePassword(self.password_file, username=user)}

    def _address(self) -> str:
        """The URL. If :meth:`_file` supplies user and password, they are removed from the URL."""
        if self.password_file is None:
            return self.url
        parts = urlsplit(self.url)
        scheme, query = parts.scheme, f"?{parts.query}" if parts.query else ""
        return f"{scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{query}"

    def _login(self) -> dict[str, Any]:
        """User, password, database and other options of the URL, without the server's address."""
        options: dict[str, Any] = dict(parse_url(self._address()))
        for name in ("host", "port", "connection_class"):
            options.pop(name, None)
        return {**options, "ssl": self.tls}

    def _sentinels(self) -> list[tuple[str, int]]:
        return [_split(address) for address in self.sentinels]

    def _for_sentinels(self, retry: Any) -> dict[str, Any]:
        options = {**_options(SENTINEL_TIMEOUT_S), **self._certificates(), "ssl": self.tls, "retry": retry}
        if self.sentinel_password_file is not None:
            return options | {"credential_provider": FilePassword(self.sentinel_password_file)}
        return options | ({"password": self.sentinel_password} if self.sentinel_password else {})


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _options(timeout_s: float) -> dict[str, Any]:
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": min(timeout_s, CONNECT_TIMEOUT_S),
        "socket_keepalive": True,
        "protocol": 2,
    }


class _Sentinels(sync_sentinel.Sentinel):
    """Gives each lookup its own copy of the list of Sentinels.

    When a Sentinel has answered, the base class moves it to the front of the list, while other lookups iterate over the
    list. If two lookups move a Sentinel at once, another Sentinel may drop out of the list. That Sentinel is then never
    asked or closed.
    """

    def discover_master(self, service_name: str) -> Any:
        lookup = copy(self)
        lookup.sentinels = list(self.sentinels)
        found = super(_Sentinels, lookup).discover_master(service_name)  # type: ignore[no-untyped-call]
        self.sentinels = lookup.sentinels
        return found


class _AsyncSentinels(async_sentinel.Sentinel):
    """:class:`_Sentinels` for coroutines."""

    async def discover_master(self, service_name: str) -> Any:
        lookup = copy(self)
        lookup.sentinels = list(self.sentinels)
        found = await super(_AsyncSentinels, lookup).discover_master(service_name)
        self.sentinels = lookup.sentinels
        return found


class _MasterPool(sync_sentinel.SentinelConnectionPool):
    """Also closes its connections to the Sentinels."""

    def close(self) -> None:
        super().close()
        for sentinel in self.sentinel_manager.sentinels:
            sentinel.close()


class _Pool(redis.asyncio.ConnectionPool):
    """Never returns a connection that was reset while idle. The base class notices only an orderly close."""

    async def ensure_connection(self, connection: Any) -> None:
        writer = getattr(connection, "_writer", None)
        if writer is not None and writer.transport.is_closing():
            await connection.disconnect(nowait=True)
        await super().ensure_connection(connection)


class _AsyncMasterPool(_Pool, async_sentinel.SentinelConnectionPool):
    """Also closes its connections to the Sentinels."""

    async def aclose(self) -> None:
        await super().aclose()
        await self.sentinel_manager.aclose()
