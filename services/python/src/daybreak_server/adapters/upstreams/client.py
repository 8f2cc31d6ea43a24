"""Sends requests to groups over connections that stay open between requests."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from functools import partial
from urllib.parse import urlsplit

from daybreak_server.adapters.upstreams.connection import HttpAnswer, HttpConnection
from daybreak_server.ports.upstreams import UnreachableError, UpstreamRequest

CONNECT_TIMEOUT_S = 3.0
"""How long a group may take to accept a connection. A node that has gone away does not answer at all."""
KEEP_ALIVE_S = 60.0
"""A connection that has been idle for longer than this is not used again. Groups keep idle connections for longer."""
MAX_IDLE = 256
"""How many idle connections to one group are kept at most."""


class HttpUpstreams:
    """Implements :class:`daybreak_server.ports.upstreams.Upstreams`."""

    def __init__(
        self, *, connect_timeout_s: float = CONNECT_TIMEOUT_S, keep_alive_s: float = KEEP_ALIVE_S
    ) -> None:
        self._idle: dict[str, list[HttpConnection]] = {}
        self._connect_timeout_s = connect_timeout_s
        self._keep_alive_s = keep_alive_s
        self._tls: ssl.SSLContext | None = None

    async def send(self, endpoint: str, request: UpstreamRequest) -> HttpAnswer:
        """See the port."""
        connection = self._take(endpoint) or await self._connect(endpoint)
        try:
            answer = connection.start(request)
            await connection.finish(request, answer)
        except BaseException:
            connection.abort()
            raise
        return answer

    def keep(self, endpoints: Sequence[str]) -> None:
        """See the port."""
        for endpoint in self._idle.keys() - set(endpoints):
            for connection in self._idle.pop(endpoint):
                connection.abort()

    async def close(self) -> None:
        """See the port."""
        self.keep(())

    def _take(self, endpoint: str) -> HttpConnection | None:
        """The idle connection that was used last, because it is the most likely one to be open."""
        idle = self._idle.get(endpoint)
        if not idle:
            return None
        oldest = asyncio.get_running_loop().time() - self._keep_alive_s
        while idle:
            connection = idle.pop()
            if connection.open and connection.free_since > oldest:
                return connection
            connection.abort()
        return None

    async def _connect(self, endpoint: str) -> HttpConnection:
        address = urlsplit(endpoint)
        tls = self._tls_context() if address.scheme == "https" else None
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                _, connection = await loop.create_connection(
                    lambda: HttpConnection(
                        host=address.netloc.encode(), on_free=partial(self._put, endpoint)
                    ),
                    address.hostname or "",
                    address.port or (443 if tls else 80),
                    ssl=tls,
                )
        except TimeoutError as exc:
            raise UnreachableError(
                f"{endpoint} did not accept a connection in {self._connect_timeout_s:g} s"
            ) from exc
        except OSError as exc:
            raise UnreachableError(f"{endpoint} does not accept connections: {exc}") from exc
        self._idle.setdefault(endpoint, [])
        return connection

    def _tls_context(self) -> ssl.SSLContext:
        """A context with the system's CA certificates. It is made once, because they take a while to load."""
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls

    def _put(self, endpoint: str, connection: HttpConnection) -> None:
        """Keep an idle connection, unless its group has left or has enough idle connections."""
        idle = self._idle.get(endpoint)
        if idle is None or len(idle) >= MAX_IDLE:
            connection.abort()
        else:
            idle.append(connection)
