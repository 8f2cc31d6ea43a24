"""The caller of a request. Every route depends on :func:`principal`, so API keys need to be added here only."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import ip_address
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from daybreak.wire import ErrorCode
from daybreak_server.api.errors import ApiError

DEFAULT_TENANT = "default"
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HEADER = b"daybreak-tenant"
_FORWARDED = frozenset({b"forwarded", b"x-forwarded-for", b"x-real-ip"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A tenant and what it may do. ``admin`` sees hosts and process ids."""

    tenant: str = DEFAULT_TENANT
    scopes: frozenset[str] = frozenset({"tasks"})

    @property
    def admin(self) -> bool:
        """Whether the caller may see what belongs to the operator of the service."""
        return "admin" in self.scopes


_LOCAL = Principal(scopes=frozenset({"tasks", "admin"}))


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Whether the address is a loopback address, also as an IPv4-mapped IPv6 address."""
    try:
        address = ip_address(host)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def is_local(connection: HTTPConnection) -> bool:
    """Whether the client runs on this machine and is not a proxy that forwards another client's request."""
    client = connection.scope.get("client")
    if client is None:
        return False
    for name, _ in connection.scope["headers"]:
        if name in _FORWARDED:
            return False
    return is_loopback(client[0])


async def principal(connection: HTTPConnection) -> Principal:
    """The principal of a request. Without API keys every caller is the tenant ``default``, and a local client may
    name another tenant with the header ``Daybreak-Tenant``.

    :raises ApiError: ``bad_header`` if a local client's ``Daybreak-Tenant`` is malformed.
    """
    if not is_local(connection):
        return Principal()
    tenant = _requested_tenant(connection)
    if tenant is None:
        return _LOCAL
    if not _TENANT.fullmatch(tenant):
        raise ApiError(
            ErrorCode.BAD_HEADER,
            "The header Daybreak-Tenant is not valid. Send 1 to 64 characters of A-Z a-z 0-9 . _ -, beginning with "
            "a letter or digit.",
        )
    return replace(_LOCAL, tenant=tenant)


def _requested_tenant(connection: HTTPConnection) -> str | None:
    for name, value in connection.scope["headers"]:
        if name == _HEADER:
            return str(value.decode("latin-1"))
    return None


Caller = Annotated[Principal, Depends(principal)]
