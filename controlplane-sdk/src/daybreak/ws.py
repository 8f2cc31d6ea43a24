"""How ``Client`` and ``AsyncClient`` use the package websockets, which the extra ``sessions`` installs."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from daybreak.errors import ConfigError
from daybreak.transport import is_loopback
from daybreak.version import VERSION


def require_websockets() -> None:
    """Raise ``ConfigError`` if websockets is not installed."""
    try:
        import websockets  # noqa: F401
    except ImportError as exc:
        raise ConfigError("live sessions need websockets: pip install 'daybreak-sdk[sessions]'") from exc


def connection_options(server: str) -> dict[str, Any]:
    """The arguments that ``Client`` and ``AsyncClient`` pass to ``connect`` of websockets."""
    options: dict[str, Any] = {
        "user_agent_header": f"daybreak-sdk/{VERSION}",
        "open_timeout": 10.0,
        "max_size": None,
        "compression": None,
    }
    if is_loopback(urlsplit(server).hostname or ""):
        options["proxy"] = None  # a corporate proxy must not intercept calls to this machine
    return options
