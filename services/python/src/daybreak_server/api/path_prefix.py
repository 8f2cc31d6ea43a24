"""The prefix: the path below which a proxy serves the API. All links (including those on the page at ``/docs``) and all
``Location`` headers begin with it.

A proxy may strip the prefix from the path (and send it as ``X-Forwarded-Prefix``). If ``http.root_path`` names the
prefix, the proxy may also leave it in the path. The server also answers requests without the prefix, such as those of
probes.

The prefix of the current request is a context variable, because the code that makes links does not have the request.
Events are the exception: they are encoded once for all subscribers, so they must not use the prefix that happens to
be set. See ``streaming.frames``.
"""

from __future__ import annotations

from contextvars import ContextVar
from functools import lru_cache
from ipaddress import ip_address, ip_network

from starlette.types import Scope

from daybreak_server.settings.rules.http import prefix as validated
from daybreak_server.settings.tree import HttpSettings

_HEADER = b"x-forwarded-prefix"
_CURRENT: ContextVar[str] = ContextVar("prefix", default="")


def current() -> str:
    """The prefix of links in the current response: ``/daybreak``, or an empty string."""
    return _CURRENT.get()


class using:  # noqa: N801 - used like a function; each request makes one, and a class is cheaper than a generator
    """Make links with this prefix inside a ``with`` block."""

    __slots__ = ("_before", "_prefix")

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix

    def __enter__(self) -> None:
        self._before = _CURRENT.set(self._prefix)

    def __exit__(self, *_: object) -> None:
        _CURRENT.reset(self._before)


class PathPrefixes:
    """Determines a request's prefix from the settings and from the headers of trusted proxies."""

    def __init__(self, settings: HttpSettings) -> None:
        self._root = settings.root_path
        self._proxies = tuple(ip_network(network) for network in settings.trusted_proxies)
        self._trusts = lru_cache(maxsize=1024)(self._is_trusted)

    def of(self, scope: Scope) -> str:
        """The prefix of links in the response. Headers that hold no path or come from no trusted proxy are ignored."""
        client = scope.get("client")
        if self._proxies and client is not None and self._trusts(client[0]):
            values = [value.decode("latin-1") for name, value in scope["headers"] if name == _HEADER]
            if values:
                parts = [validated(part) for part in ",".join(values).split(",")]
                if None not in parts:
                    return "".join(part for part in parts if part)
        return self._root or _mount_path(scope)

    def path(self, scope: Scope) -> str:
        """The path as the routes know it: without the configured prefix and without the app's mount path."""
        return _without(self._root, _without(_mount_path(scope), scope["path"]))

    def _is_trusted(self, host: str) -> bool:
        try:
            address = ip_address(host)
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._proxies)


def _mount_path(scope: Scope) -> str:
    """The path at which another app, or Ray Serve by its route prefix, has mounted this app."""
    found: str = scope.get("root_path", "")
    return found.rstrip("/")


def _without(prefix: str, path: str) -> str:
    rest = path.removeprefix(prefix)
    return (rest or "/") if prefix and rest != path and rest[:1] in {"", "/"} else path
