"""Addresses as they are printed and called: a host may be an IPv6 address, which a URL wants in brackets."""

from __future__ import annotations

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}
"""An address that listens on every network, and the one of this machine that reaches it.

asyncio serves IPv6 alone on ``::``, so 127.0.0.1 would find nobody there.
"""


def reachable(host: str) -> str:
    """An address to call where ``host`` is listened on."""
    return _EVERYWHERE.get(host, host)


def host_port(host: str, port: int) -> str:
    """``127.0.0.1:8000`` or ``[::1]:8000``."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def url_of(host: str, port: int) -> str:
    """``http://127.0.0.1:8000`` or ``http://[::1]:8000``."""
    return f"http://{host_port(host, port)}"
