"""What the two clients share about httpx2: its settings, its answers and its errors."""

from __future__ import annotations

from typing import Any, TypedDict

import httpx2

from daybreak.config import Config
from daybreak.core.effects import HttpRequest, Reply
from daybreak.errors import ConfigError, DaybreakError, TransportError, UnreachableError
from daybreak.version import VERSION

CONNECT_TIMEOUT_S = 5.0
_LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
_UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
FAULTS = (httpx2.RequestError, httpx2.InvalidURL, httpx2.StreamError)
"""What httpx2 raises while a request is made or its answer read."""


class HttpOptions(TypedDict):
    """Arguments that ``httpx2.Client`` and ``httpx2.AsyncClient`` have in common."""

    base_url: httpx2.URL
    headers: dict[str, str]
    trust_env: bool
    limits: httpx2.Limits


class RequestOptions(TypedDict):
    """Arguments of ``build_request``."""

    params: dict[str, str] | None
    headers: dict[str, str]
    json: Any
    timeout: httpx2.Timeout


def http_options(config: Config, headers: dict[str, str] | None) -> HttpOptions:
    """How to make an httpx2 client. Raises ``ConfigError`` for a URL that is none."""
    try:
        url = httpx2.URL(config.url)
    except httpx2.InvalidURL as exc:
        raise ConfigError(f"{config.url!r} is not a URL: {exc}") from exc
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigError(f"{config.url!r} is not a URL such as http://127.0.0.1:8000")
    own = {"User-Agent": f"daybreak-sdk/{VERSION}", "Accept": "application/json"}
    if config.api_key is not None:
        if not (config.api_key.isascii() and config.api_key.isprintable()):
            raise ConfigError("the API key has characters that a header cannot carry")
        own["Authorization"] = f"Bearer {config.api_key}"
    return {
        "base_url": url,
        "headers": own | (headers or {}),
        # A company's HTTP_PROXY must not swallow calls to this very machine.
        "trust_env": url.host not in _LOOPBACK,
        "limits": httpx2.Limits(max_connections=None, max_keepalive_connections=20),
    }


def request_options(request: HttpRequest) -> RequestOptions:
    """How to build the request."""
    return {
        "params": dict(request.params) or None,
        "headers": dict(request.headers),
        "json": request.json,
        "timeout": httpx2.Timeout(request.read_timeout_s, connect=CONNECT_TIMEOUT_S),
    }


def reply_of(response: httpx2.Response, body: bytes = b"") -> Reply:
    """The answer in the words of the core."""
    return Reply(
        status=response.status_code, headers={k.lower(): v for k, v in response.headers.items()}, body=body
    )


def translate(error: Exception, url: str) -> DaybreakError:
    """httpx2's error in the words of this package."""
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.InvalidURL):
        return ConfigError(f"{url}: {error}")
    what = str(error) or type(error).__name__
    if isinstance(error, _UNSENT):
        return UnreachableError(f"cannot reach {url}: {what}")
    return TransportError(f"the connection to {url} broke: {what}")
