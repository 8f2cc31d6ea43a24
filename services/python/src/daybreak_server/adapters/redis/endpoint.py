"""Where Redis is and how it is reached: one server, TLS, or whichever server Sentinel calls the master now.

Everything that connects does so through here. With Sentinel, each new connection asks for the master's address, so
a process that lost its connection in a fail-over finds the new master by itself; what is asked meanwhile fails as it
does while a single server restarts.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import redis
import redis.asyncio
import redis.asyncio.sentinel as async_sentinel
import redis.sentinel as sync_sentinel
from redis.asyncio.connection import parse_url
from redis.backoff import NoBackoff
from redis.retry import Retry

from daybreak_server.adapters.redis.credentials import FilePassword
from daybreak_server.settings.tree import RedisSettings

SENTINEL_TIMEOUT_S = 1.0
"""One Sentinel may take so long to say where the master is; then the next is asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """What a process must know to connect. All of it fits into JSON."""

    url: str
    """``redis://``, ``rediss://`` (TLS) or ``unix://``, with user, password and database. With Sentinel, its host is
    not asked."""
    ca_file: str | None = None
    """Certificates that may have signed the server's; ``None``: those of the system."""
    cert_file: str | None = None
    key_file: str | None = None
    sentinels: tuple[str, ...] = ()
    """``host:port`` of each."""
    sentinel_master: str = ""
    sentinel_password: str | None = None
    password_file: str | None = None
    """Where the password is, if the URL has none; read anew for each connection."""
    sentinel_password_file: str | None = None
    wait_replicas: int = 0
    """A task is accepted when so many replicas have it."""

    @classmethod
    def of(cls, where: str | Mapping[str, Any] | Endpoint) -> Endpoint:
        """An endpoint from a URL, or from the JSON object that :func:`dataclasses.asdict` made of one."""
        if isinstance(where, Endpoint):
            return where
        if isinstance(where, str):
            return cls(url=where)
        return cls(**{**where, "sentinels": tuple(where.get("sentinels", ()))})

    @classmethod
    def configured(cls, settings: RedisSettings) -> Endpoint:
        """What the settings say. :raises ValueError: when they name no Redis."""
        if settings.url is None:
            raise ValueError("the settings name no Redis")
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
        """Whether connections are encrypted, those to Sentinel too."""
        return self.url.startswith("rediss:")

    def pool(self, *, timeout_s: float) -> redis.ConnectionPool:
        """Connections for threads. None repeats a command by itself."""
        once = Retry(NoBackoff(), 0)
        options = {**self._options(timeout_s), **self._certificates(), **self._file(), "retry": once}
        if not self.sentinels:
            return redis.ConnectionPool.from_url(self._address(), **options)
        asked = _Sentinels(self._sentinels(), sentinel_kwargs=self._for_sentinels(once))  # type: ignore[no-untyped-call]
        return _MasterPool(self.sentinel_master, asked, **options, **self._login())  # type: ignore[no-untyped-call]

    def async_pool(self, *, timeout_s: float) -> redis.asyncio.ConnectionPool:
        """The same for coroutines."""
        once = redis.asyncio.retry.Retry(NoBackoff(), 0)
        options = {**self._options(timeout_s), **self._certificates(), **self._file(), "retry": once}
        if not self.sentinels:
            return _Pool.from_url(self._address(), **options)
        asked = _AsyncSentinels(self._sentinels(), sentinel_kwargs=self._for_sentinels(once))  # type: ignore[no-untyped-call]
        return _AsyncMasterPool(self.sentinel_master, asked, **options, **self._login())  # type: ignore[no-untyped-call]

    def sentinel(self, address: str) -> redis.asyncio.Redis:
        """A client for one of the Sentinels."""
        host, port = _split(address)
        once = redis.asyncio.retry.Retry(NoBackoff(), 0)
        return redis.asyncio.Redis(host=host, port=port, **self._for_sentinels(once))

    def _options(self, timeout_s: float) -> dict[str, Any]:
        """What every connection has. A Unix socket has nothing to keep alive, and redis-py refuses to be told so."""
        options = _options(timeout_s)
        if self.url.startswith("unix:"):
            del options["socket_keepalive"]
        return options

    def _certificates(self) -> dict[str, Any]:
        """How TLS is spoken, by the URL's options and the files; to Sentinels in the same way."""
        if not self.tls:
            return {}
        said = {name: value for name, value in parse_url(self.url).items() if name.startswith("ssl_")}
        files = {"ca_certs": self.ca_file, "certfile": self.cert_file, "keyfile": self.key_file}
        return said | {f"ssl_{name}": file for name, file in files.items() if file is not None}

    def _file(self) -> dict[str, Any]:
        """Who we are, where the password is in a file."""
        if self.password_file is None:
            return {}
        user = unquote(urlsplit(self.url).username or "") or None
        return {"credential_provider": FilePassword(self.password_file, username=user)}

    def _address(self) -> str:
        """The URL, without the user where :meth:`_file` says who that is."""
        if self.password_file is None:
            return self.url
        parts = urlsplit(self.url)
        scheme, query = parts.scheme, f"?{parts.query}" if parts.query else ""
        return f"{scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}{query}"

    def _login(self) -> dict[str, Any]:
        """User, password, database and whatever else the URL says, but where the server is."""
        said: dict[str, Any] = dict(parse_url(self._address()))
        for name in ("host", "port", "connection_class"):
            said.pop(name, None)
        return {**said, "ssl": self.tls}

    def _sentinels(self) -> list[tuple[str, int]]:
        return [_split(address) for address in self.sentinels]

    def _for_sentinels(self, retry: Any) -> dict[str, Any]:
        told = {**_options(SENTINEL_TIMEOUT_S), **self._certificates(), "ssl": self.tls, "retry": retry}
        if self.sentinel_password_file is not None:
            return told | {"credential_provider": FilePassword(self.sentinel_password_file)}
        return told | ({"password": self.sentinel_password} if self.sentinel_password else {})


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _options(timeout_s: float) -> dict[str, Any]:
    return {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "socket_keepalive": True,
        "protocol": 2,
    }


class _Sentinels(sync_sentinel.Sentinel):
    """Each question has a list of its own to put into order.

    Its base moves the Sentinel that answered to the front of the list that other connections walk along at that
    moment; where two do so at once, one Sentinel takes the place of another, which is never asked again or closed.
    """

    def discover_master(self, service_name: str) -> Any:
        asked = copy(self)
        asked.sentinels = list(self.sentinels)
        found = super(_Sentinels, asked).discover_master(service_name)  # type: ignore[no-untyped-call]
        self.sentinels = asked.sentinels
        return found


class _AsyncSentinels(async_sentinel.Sentinel):
    """The same for coroutines."""

    async def discover_master(self, service_name: str) -> Any:
        asked = copy(self)
        asked.sentinels = list(self.sentinels)
        found = await super(_AsyncSentinels, asked).discover_master(service_name)
        self.sentinels = asked.sentinels
        return found


class _MasterPool(sync_sentinel.SentinelConnectionPool):
    """Its connections to the Sentinels end with it."""

    def close(self) -> None:
        super().close()
        for one in self.sentinel_manager.sentinels:
            one.close()


class _Pool(redis.asyncio.ConnectionPool):
    """Hands out no connection that was reset while it lay idle; its base looks for a clean end only."""

    async def ensure_connection(self, connection: Any) -> None:
        writer = getattr(connection, "_writer", None)
        if writer is not None and writer.transport.is_closing():
            await connection.disconnect(nowait=True)
        await super().ensure_connection(connection)


class _AsyncMasterPool(_Pool, async_sentinel.SentinelConnectionPool):
    """Its connections to the Sentinels end with it."""

    async def aclose(self) -> None:
        await super().aclose()
        await self.sentinel_manager.aclose()
