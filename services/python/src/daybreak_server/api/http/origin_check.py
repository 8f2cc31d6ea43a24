"""Which names and which pages may use the API: Host and Origin, looked at before anything else is done.

While there are no keys, whoever reaches the server may use it, and whoever reaches it from the same machine is its
administrator. A browser reaches it on behalf of every page that it shows, so two things are refused:

* **DNS rebinding.** A page of ``evil.example`` whose name begins to resolve to 127.0.0.1 is of the server's own
  origin, as far as the browser knows; only the Host tells. Addresses cannot be rebound, and ``localhost`` is not
  looked up, so these are always fine. Names are looked at for all requests from this machine, and for all requests
  at all where ``http.allowed_hosts`` is set: behind an Ingress the name is the Ingress's business.
* **Cross-site requests.** Requests that change something, and WebSockets, carry the Origin of their page. It must be
  the server's own or one of ``http.allowed_origins``; those get the CORS headers that let them read the answers.

Programs that are no browsers send no Origin, and are not concerned.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from urllib.parse import urlsplit

from starlette.types import Scope

from daybreak.wire import ErrorCode
from daybreak_server.api.auth.principal import is_loopback
from daybreak_server.api.problems import ApiError
from daybreak_server.settings.rules.http import EVERY, origin
from daybreak_server.settings.tree import HttpSettings

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITE = frozenset({"same-origin", "none"})
_EXPOSED = b"Location, Retry-After, X-Request-Id, Idempotent-Replay, ETag, Content-Range, Content-Disposition"
Headers = list[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a request says of where it comes from and where it wants to."""

    hosts: tuple[str, ...]
    forwarded_hosts: tuple[str, ...]
    origin: str | None
    site: str | None

    @classmethod
    def of(cls, scope: Scope) -> _Asked:
        found: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            if name in _LOOKED_AT:
                found.setdefault(name, []).append(value.decode("latin-1").strip())
        forwarded = ",".join(found.get(b"x-forwarded-host", ()))
        return cls(
            hosts=tuple(found.get(b"host", ())),
            forwarded_hosts=tuple(part.strip() for part in forwarded.split(",") if part.strip()),
            origin=found.get(b"origin", [None])[0],
            site=found.get(b"sec-fetch-site", [None])[0],
        )


_LOOKED_AT = frozenset({b"host", b"x-forwarded-host", b"origin", b"sec-fetch-site"})


class Guard:
    """Made once from the settings."""

    def __init__(self, settings: HttpSettings) -> None:
        own = [socket.gethostname().lower(), "localhost", "*.localhost", settings.host.lower()]
        allowed = [*own, *settings.allowed_hosts]
        self._every_host = EVERY in settings.allowed_hosts
        self._every_client = bool(settings.allowed_hosts) or _names_loopback(settings.host)
        self._names = frozenset(name for name in allowed if not name.startswith("*"))
        self._endings = tuple(name[1:] for name in allowed if name.startswith("*."))
        self._origins = frozenset(settings.allowed_origins)
        self._knows = lru_cache(maxsize=1024)(self._is_known)

    def check(self, scope: Scope) -> ApiError | None:
        """Why the request or WebSocket is refused, if it is."""
        asked = _Asked.of(scope)
        if not self._every_host and (self._every_client or _from_here(scope)):
            for host in asked.hosts:
                if not self._knows(host):
                    return _wrong_host(host)
        if scope["type"] == "http" and scope["method"] in _SAFE:
            return None
        return None if self._may_change(asked) else _wrong_origin(asked)

    def cors(self, scope: Scope) -> Headers:
        """Headers that let a page of an allowed other site read the answer; none for all others."""
        if not self._origins:
            return []
        asked = _Asked.of(scope).origin
        if asked is None or not self._is_listed(asked):
            return []
        return [
            (b"access-control-allow-origin", asked.encode("latin-1")),
            (b"access-control-expose-headers", _EXPOSED),
            (b"vary", b"Origin"),
        ]

    def preflight(self, scope: Scope) -> Headers | None:
        """What answers a browser's question before a request from an allowed other site, beside :meth:`cors`."""
        if scope["type"] != "http" or scope["method"] != "OPTIONS" or not self.cors(scope):
            return None
        headers = dict(scope["headers"])
        if b"access-control-request-method" not in headers:
            return None
        wanted = headers.get(b"access-control-request-headers", b"")
        return [
            (b"access-control-allow-methods", b"GET, HEAD, POST, DELETE"),
            *([(b"access-control-allow-headers", wanted)] if wanted else []),
            (b"access-control-max-age", b"600"),
        ]

    def _is_known(self, host: str) -> bool:
        name = _name(host)
        return name is not None and (name in self._names or name.endswith(self._endings) or _is_address(name))

    def _is_listed(self, found: str) -> bool:
        return EVERY in self._origins or found in self._origins or origin(found) in self._origins

    def _may_change(self, asked: _Asked) -> bool:
        if asked.origin is not None and self._is_listed(asked.origin):
            return True
        if asked.site is not None:  # the browser's own word, which no page can change
            return asked.site in _OWN_SITE
        return asked.origin is None or _is_own(asked.origin, (*asked.hosts, *asked.forwarded_hosts))


def _names_loopback(host: str) -> bool:
    return host == "localhost" or is_loopback(host)


def _from_here(scope: Scope) -> bool:
    """Whether the connection is from this machine. Forwarding headers do not count: a page can send those too."""
    client = scope.get("client")
    return client is not None and is_loopback(client[0])


def _name(host: str) -> str | None:
    """The name or address in a Host header, without its port."""
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return None
    return name.rstrip(".") if name and not any(mark in host for mark in "/?#@\\") else None


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_own(found: str, hosts: Iterable[str]) -> bool:
    """Whether the origin is the server's, by one of the names under which the request came."""
    scheme = found.partition("://")[0]
    spelled = origin(found)
    return spelled is not None and any(spelled == origin(f"{scheme}://{host}") for host in hosts)


def _wrong_host(host: str) -> ApiError:
    return ApiError(
        ErrorCode.HOST_NOT_ALLOWED,
        f"The Host {host[:100]!r} is no name of this server. Use its address or localhost, or add the name to the "
        "setting http.allowed_hosts (DAYBREAK_HTTP__ALLOWED_HOSTS).",
    )


def _wrong_origin(asked: _Asked) -> ApiError:
    page = "another site" if asked.origin is None else repr(asked.origin[:100])
    return ApiError(
        ErrorCode.ORIGIN_NOT_ALLOWED,
        f"Pages of {page} may not change anything here, nor open a WebSocket. To allow them, add their origin to the "
        "setting http.allowed_origins (DAYBREAK_HTTP__ALLOWED_ORIGINS).",
    )
