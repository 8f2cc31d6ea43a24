"""Who asks: the one dependency that every route has, so that keys slot in here and nowhere else."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from daybreak.wire import ErrorCode
from daybreak_server.api.problems import ApiError

DEFAULT_TENANT = "default"
_TENANT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A tenant and what it may do. ``admin`` sees hosts and process ids."""

    tenant: str = DEFAULT_TENANT
    scopes: frozenset[str] = frozenset({"tasks"})

    @property
    def admin(self) -> bool:
        """Whether it may see what belongs to the operator."""
        return "admin" in self.scopes


def is_local(connection: HTTPConnection) -> bool:
    """Whether the client is this machine itself, not a proxy on it that speaks for somebody else."""
    if connection.client is None or any(name in connection.headers for name in _FORWARDED):
        return False
    try:
        return ip_address(connection.client.host).is_loopback
    except ValueError:
        return False


async def principal(connection: HTTPConnection) -> Principal:
    """The principal of a request. Without keys all are ``default``, and a local client may name its tenant.

    :raises ApiError: ``bad_header`` when a local client's ``Daybreak-Tenant`` is malformed.
    """
    if not is_local(connection):
        return Principal()
    tenant = connection.headers.get("daybreak-tenant", DEFAULT_TENANT)
    if not _TENANT.fullmatch(tenant):
        raise ApiError(
            ErrorCode.BAD_HEADER,
            "Daybreak-Tenant is 1 to 64 of A-Z a-z 0-9 . _ - and begins with a letter or digit.",
        )
    return Principal(tenant=tenant, scopes=frozenset({"tasks", "admin"}))


Caller = Annotated[Principal, Depends(principal)]
