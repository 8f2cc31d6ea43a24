"""The path below which a proxy serves the API: what links, ``Location`` and the page at ``/docs`` begin with.

A proxy may take the prefix away (``X-Forwarded-Prefix`` says so) or leave it in the path; both work, and without
the prefix the server answers as well, as probes need. The prefix of the request at hand is a context variable, as
links are made far from the request that they answer. Only events, which are made once for all subscribers, must not
use the one that happens to be set: see ``streams.frames``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from ipaddress import ip_address, ip_network

from starlette.types import Scope

from daybreak_server.settings.rules.http import prefix as checked
from daybreak_server.settings.tree import HttpSettings

_HEADER = b"x-forwarded-prefix"
_CURRENT: ContextVar[str] = ContextVar("prefix", default="")


def current() -> str:
    """The prefix of links in the answer that is being made: ``/daybreak``, or nothing."""
    return _CURRENT.get()


@contextmanager
def using(prefix: str) -> Iterator[None]:
    """Make links with this prefix."""
    token = _CURRENT.set(prefix)
    try:
        yield
    finally:
        _CURRENT.reset(token)


class Prefixes:
    """Which prefix a request has, by the settings and by proxies that are trusted."""

    def __init__(self, settings: HttpSettings) -> None:
        self._root = settings.root_path
        self._proxies = tuple(ip_network(network) for network in settings.trusted_proxies)
        self._trusts = lru_cache(maxsize=1024)(self._is_trusted)

    def of(self, scope: Scope) -> str:
        """What links in the answer begin with. A header of anybody else, or one that is no path, counts for nothing."""
        client = scope.get("client")
        if self._proxies and client is not None and self._trusts(client[0]):
            given = [value.decode("latin-1") for name, value in scope["headers"] if name == _HEADER]
            if given:
                parts = [checked(part) for part in ",".join(given).split(",")]
                if None not in parts:
                    return "".join(part for part in parts if part)
        return self._root or _mounted(scope)

    def path(self, scope: Scope) -> str:
        """The path as the routes know it: without the setting's prefix, and without what the app is mounted below."""
        return _without(self._root, _without(_mounted(scope), scope["path"]))

    def _is_trusted(self, host: str) -> bool:
        try:
            address = ip_address(host)
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in self._proxies)


def _mounted(scope: Scope) -> str:
    """Where another app, or Ray Serve's route prefix, has put this one."""
    found: str = scope.get("root_path", "")
    return found.rstrip("/")


def _without(prefix: str, path: str) -> str:
    rest = path.removeprefix(prefix)
    return (rest or "/") if prefix and rest != path and rest[:1] in {"", "/"} else path
