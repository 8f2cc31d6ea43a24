"""Rules for settings of the HTTP server: host names, origins, networks, a path prefix."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from ipaddress import ip_network
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator

EVERY: Final = "*"
_HOST = re.compile(r"(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*")
_OWN_PATHS = frozenset(
    {"v1", "generate", "docs", "openapi.json", "health", "healthz", "readyz", "metrics", "workers"}
)
_DEFAULT_PORTS = {"http": 80, "https": 443}


def _listed(value: Any) -> Any:
    """Split a text with several values, which are separated by commas or form a JSON array."""
    if not isinstance(value, str):
        return value
    with suppress(ValueError):
        listed = json.loads(value)
        if isinstance(listed, list):
            return tuple(listed)
    return tuple(part.strip() for part in value.split(",") if part.strip())


def _host(text: str) -> str:
    host = text.lower().rstrip(".")
    if host != EVERY and not _HOST.fullmatch(host):
        raise ValueError(f"write a name such as daybreak.example.com, *.example.com or *, not {text!r}")
    return host


def origin(text: str) -> str | None:
    """An origin in canonical form: lower case, without the default port. ``None`` if the text is not an origin."""
    try:
        parts = urlsplit(text.strip().lower())
        port = parts.port
    except ValueError:
        return None
    if not parts.scheme or not parts.hostname or parts.path.strip("/") or parts.query or parts.username:
        return None
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    shown = "" if port is None or port == _DEFAULT_PORTS.get(parts.scheme) else f":{port}"
    return f"{parts.scheme}://{host}{shown}"


def _origin(text: str) -> str:
    if text in {EVERY, "null"}:
        return text
    found = origin(text)
    if found is None:
        raise ValueError(f"write an origin such as https://app.example.com, or *, not {text!r}")
    return found


def _network(text: str) -> str:
    try:
        return str(ip_network(text))
    except ValueError as exc:
        raise ValueError(f"write an address or a network such as 10.0.0.0/8, not {text!r}") from exc


def prefix(text: str) -> str | None:
    """A path prefix such as ``/daybreak``, without a slash at its end. ``None`` if the text is not one."""
    found = text.strip().rstrip("/")
    return found if len(found) <= 200 and _PREFIX.fullmatch(found) else None


def _root_path(text: str) -> str:
    found = prefix(text)
    if found is None or any(part in {".", ".."} for part in found.split("/")):
        raise ValueError(f"write a path such as /daybreak, not {text!r}")
    if found.partition("/")[2].partition("/")[0] in _OWN_PATHS:
        raise ValueError(f"{found} starts like a path of the API itself; choose another prefix")
    return found


Hosts = Annotated[tuple[Annotated[str, AfterValidator(_host)], ...], BeforeValidator(_listed)]
Origins = Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], BeforeValidator(_listed)]
Networks = Annotated[tuple[Annotated[str, AfterValidator(_network)], ...], BeforeValidator(_listed)]
RootPath = Annotated[str, AfterValidator(_root_path)]
