"""The caller of a request. Routes ask only this module who the caller is, so API keys need to be added only here."""

from __future__ import annotations

import hmac
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
    """The tenant and the scopes of a caller. An administrator has the scope ``admin``."""

    tenant: str = DEFAULT_TENANT
    scopes: frozenset[str] = frozenset({"tasks"})

    @property
    def admin(self) -> bool:
        """Whether the caller is an administrator, who sees hosts and process ids, and may change pools."""
        return "admin" in self.scopes


_ANYONE = Principal()
_ADMIN = Principal(scopes=frozenset({"tasks", "admin"}))


@lru_cache(maxsize=1024)
def is_loopback(host: str) -> bool:
    """Whether the address is a loopback address. An IPv4-mapped IPv6 address may be one too."""
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


def bearer_token(connection: HTTPConnection) -> bytes | None:
    """What the client has sent as ``Authorization: Bearer …``."""
    for name, value in connection.scope["headers"]:
        if name == b"authorization":
            scheme, _, token = value.partition(b" ")
            return (token.strip() or None) if scheme.lower() == b"bearer" else None
    return None


def has_token(connection: HTTPConnection, *tokens: str | None) -> bool:
    """Whether the client has sent one of the tokens. The comparison's time reveals at most the tokens' lengths."""
    sent = bearer_token(connection)
    if sent is None:
        return False
    equal = [hmac.compare_digest(sent, token.encode()) for token in tokens if token]
    return any(equal)


async def principal(connection: HTTPConnection) -> Principal:
    """The principal of a request. Without API keys every caller is the tenant ``default``, and a local client may
    name another tenant with the header ``Daybreak-Tenant``. Local clients are administrators, and so is every client
    that sends ``admin.token``. Any other token is ignored, because OpenAI's clients always send one.

    If a client resets its connection before the server accepts the connection, the client's address is unknown. Such a
    client may be a local one that names a tenant, so its request must not run as ``default`` instead.

    :raises ApiError: ``bad_header`` if a local client's ``Daybreak-Tenant`` is malformed, or if a client whose address
        is unknown sent one.
    """
    if connection.scope.get("client") is None and _requested_tenant(connection) is not None:
        raise ApiError(
            ErrorCode.BAD_HEADER,
            "The server does not know the address of this client, so the client may not send the header "
            "Daybreak-Tenant. The client has probably closed the connection already.",
        )
    if not is_local(connection):
        return _ADMIN if has_token(connection, connection.app.state.admin_token) else _ANYONE
    tenant = _requested_tenant(connection)
    if tenant is None:
        return _ADMIN
    if not _TENANT.fullmatch(tenant):
        raise ApiError(
            ErrorCode.BAD_HEADER,
            "The header Daybreak-Tenant is not valid. Send 1 to 64 characters of A-Z a-z 0-9 . _ -, beginning with "
            "a letter or digit.",
        )
    return replace(_ADMIN, tenant=tenant)


def _requested_tenant(connection: HTTPConnection) -> str | None:
    for name, value in connection.scope["headers"]:
        if name == _HEADER:
            return str(value.decode("latin-1"))
    return None


Caller = Annotated[Principal, Depends(principal)]
