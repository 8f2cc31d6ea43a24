"""Checks Host and Origin before anything else, so that web pages cannot misuse a browser's access to the server.

Without API keys anyone who can reach the server may use it, and anyone on the same machine is its administrator. Any
page that a browser shows can make the browser send requests to the server. So two kinds of requests are refused:

* **DNS rebinding.** A page of ``evil.example`` waits until that name resolves to 127.0.0.1. The browser then takes the
  server for the page's own origin, and only the Host header shows the difference. So the Host must be an allowed name.
  The server checks it in all requests from its own machine. If the server listens on loopback or ``http.allowed_hosts``
  is set, it checks the Host in every request. ``*`` in ``http.allowed_hosts`` turns the check off. Behind an Ingress,
  the Ingress decides which host names it accepts. IP addresses and ``localhost`` are always allowed, because they
  cannot be rebound. The machine's own name and ``http.host`` are always allowed too.
* **Cross-site requests.** If a page changes something or opens a WebSocket, the browser sends the page's Origin. The
  origin must be listed in ``http.allowed_origins`` or be the server's own. (Newer browsers say in ``Sec-Fetch-Site``
  whether it is the server's own.) Listed origins also get the CORS headers with which their pages can read the
  responses. Clients other than browsers send no Origin, so this check lets them pass.
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
from daybreak_server.api.errors import ApiError
from daybreak_server.settings.rules.http import EVERY, origin
from daybreak_server.settings.tree import HttpSettings

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITE = frozenset({"same-origin", "none"})
_EXPOSED = b"Location, Retry-After, X-Request-Id, Idempotent-Repeat, ETag, Content-Range, Content-Disposition"
Headers = list[tuple[bytes, bytes]]


@dataclass(slots=True)  # not frozen: objects of a frozen class take longer to create
class _Addressing:
    """The headers of a request that say which page sent it and which server it is meant for."""

    hosts: tuple[str, ...]
    forwarded_hosts: tuple[str, ...]
    origin: str | None
    site: str | None

    @classmethod
    def of(cls, scope: Scope) -> _Addressing:
        found = cls((), (), None, None)
        for name, value in scope["headers"]:
            if name not in _HEADERS:
                continue
            text = value.decode("latin-1").strip()
            if name == b"host":
                found.hosts += (text,)
            elif name == b"x-forwarded-host":
                found.forwarded_hosts += tuple(part.strip() for part in text.split(",") if part.strip())
            elif name == b"origin":
                found.origin = text if found.origin is None else found.origin
            else:
                found.site = text if found.site is None else found.site
        return found


_HEADERS = frozenset({b"host", b"x-forwarded-host", b"origin", b"sec-fetch-site"})


class OriginCheck:
    """Checks requests against the settings of one server."""

    def __init__(self, settings: HttpSettings) -> None:
        own_names = [socket.gethostname().lower(), "localhost", "*.localhost", settings.host.lower()]
        allowed = [*own_names, *settings.allowed_hosts]
        self._allows_any_host = EVERY in settings.allowed_hosts
        self._checks_every_client = bool(settings.allowed_hosts) or _names_loopback(settings.host)
        self._names = frozenset(name for name in allowed if not name.startswith("*"))
        self._suffixes = tuple(name[1:] for name in allowed if name.startswith("*."))
        self._origins = frozenset(settings.allowed_origins)
        self._knows = lru_cache(maxsize=1024)(self._is_known)

    def check(self, scope: Scope) -> ApiError | None:
        """The error for a request or WebSocket that is refused; ``None`` if it is allowed."""
        request = _Addressing.of(scope)
        if not self._allows_any_host and (self._checks_every_client or _is_from_this_machine(scope)):
            for host in request.hosts:
                if not self._knows(host):
                    return _host_not_allowed(host)
        if scope["type"] == "http" and scope["method"] in _SAFE:
            return None
        return None if self._may_change(request) else _origin_not_allowed(request)

    def cors(self, scope: Scope) -> Headers:
        """Headers that let the pages of an allowed origin read the response; no headers for other origins."""
        if not self._origins:
            return []
        page_origin = _Addressing.of(scope).origin
        if page_origin is None or not self._is_listed(page_origin):
            return []
        return [
            (b"access-control-allow-origin", page_origin.encode("latin-1")),
            (b"access-control-expose-headers", _EXPOSED),
            (b"vary", b"Origin"),
        ]

    def preflight(self, scope: Scope) -> Headers | None:
        """Headers of the response to a CORS preflight from a listed origin, in addition to :meth:`cors`; ``None`` for
        any other request."""
        if scope["type"] != "http" or scope["method"] != "OPTIONS" or not self.cors(scope):
            return None
        headers = dict(scope["headers"])
        if b"access-control-request-method" not in headers:
            return None
        requested = headers.get(b"access-control-request-headers", b"")
        return [
            (b"access-control-allow-methods", b"GET, HEAD, POST, PATCH, DELETE"),
            *([(b"access-control-allow-headers", requested)] if requested else []),
            (b"access-control-max-age", b"600"),
        ]

    def _is_known(self, host: str) -> bool:
        name = _host_name(host)
        if name is None:
            return False
        return name in self._names or name.endswith(self._suffixes) or _is_address(name)

    def _is_listed(self, page_origin: str) -> bool:
        listed = self._origins
        return EVERY in listed or page_origin in listed or origin(page_origin) in listed

    def _may_change(self, request: _Addressing) -> bool:
        if request.origin is not None and self._is_listed(request.origin):
            return True
        if request.site is not None:  # The browser itself sets this header; a page cannot change it.
            return request.site in _OWN_SITE
        hosts = (*request.hosts, *request.forwarded_hosts)
        return request.origin is None or _is_own(request.origin, hosts)


def _names_loopback(host: str) -> bool:
    return host == "localhost" or is_loopback(host)


def _is_from_this_machine(scope: Scope) -> bool:
    """Whether the connection is or may be local. If the client has already reset it, the client's address is unknown.

    Forwarding headers do not count, because a page can send them.
    """
    client = scope.get("client")
    return client is None or is_loopback(client[0])


def _host_name(host: str) -> str | None:
    """The name or address in a Host header, without the port."""
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return None
    return name.rstrip(".") if name and not any(character in host for character in "/?#@\\") else None


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _is_own(page_origin: str, hosts: Iterable[str]) -> bool:
    """Whether the page is the server's own: its origin names one of the hosts that the request was sent to."""
    scheme = page_origin.partition("://")[0]
    normalized = origin(page_origin)
    return normalized is not None and any(normalized == origin(f"{scheme}://{host}") for host in hosts)


def _host_not_allowed(host: str) -> ApiError:
    return ApiError(
        ErrorCode.HOST_NOT_ALLOWED,
        f"The Host {host[:100]!r} is not a name of this server. Use its address or localhost, or add the name to the "
        "setting http.allowed_hosts (DAYBREAK_HTTP__ALLOWED_HOSTS).",
    )


def _origin_not_allowed(request: _Addressing) -> ApiError:
    site = "another site" if request.origin is None else repr(request.origin[:100])
    return ApiError(
        ErrorCode.ORIGIN_NOT_ALLOWED,
        f"Pages from {site} may neither change anything on this server nor open a WebSocket. To allow them, add "
        "their origin to the setting http.allowed_origins (DAYBREAK_HTTP__ALLOWED_ORIGINS).",
    )
