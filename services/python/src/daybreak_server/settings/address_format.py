"""Formats addresses for output and for connections. In a URL, an IPv6 address needs brackets."""

from __future__ import annotations

_LOOPBACK = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}  # noqa: S104 - compared, not bound
"""Wildcard address → the loopback address that reaches it. asyncio serves only IPv6 on ``::``, hence ``::1``."""


def reachable(host: str) -> str:
    """The address at which this machine reaches a server that listens on ``host``."""
    return _LOOPBACK.get(host, host)


def host_port(host: str, port: int) -> str:
    """``127.0.0.1:8000`` or ``[::1]:8000``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def url_of(host: str, port: int) -> str:
    """``http://127.0.0.1:8000`` or ``http://[::1]:8000``."""
    return f"http://{host_port(host, port)}"
