"""The part of ``Client`` and ``AsyncClient`` that uses httpx2: its options, requests, responses and errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from typing import Any, TypedDict

import httpx2

from daybreak.config import Config
from daybreak.core.effects import HttpRequest, Reply
from daybreak.errors import ArgumentError, ConfigError, DaybreakError, TransportError, UnreachableError
from daybreak.version import VERSION

CONNECT_TIMEOUT_S = 5.0
_UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout)
HTTP_ERRORS = (httpx2.RequestError, httpx2.InvalidURL, httpx2.StreamError)
"""The errors that httpx2 raises while it sends a request or reads a response."""


class HttpOptions(TypedDict):
    """The arguments of both ``httpx2.Client`` and ``httpx2.AsyncClient``."""

    base_url: httpx2.URL
    headers: dict[str, str]
    trust_env: bool
    limits: httpx2.Limits


class RequestOptions(TypedDict):
    """The arguments of httpx2's ``build_request``."""

    params: dict[str, str] | None
    headers: dict[str, str]
    json: Any
    timeout: httpx2.Timeout


def http_options(config: Config, headers: dict[str, str] | None) -> HttpOptions:
    """The arguments for an httpx2 client. Raises ``ConfigError`` for an unusable URL or API key."""
    try:
        url = httpx2.URL(config.url)
    except (httpx2.InvalidURL, ValueError) as exc:
        raise ConfigError(f"{config.url!r} is not a URL: {exc}{_bracket_hint(config.url)}") from exc
    if url.scheme not in ("http", "https") or not url.host or not 0 <= (url.port or 0) <= 65535:
        raise ConfigError(f"{config.url!r} is not a URL such as http://127.0.0.1:8000")
    defaults = {"User-Agent": f"daybreak-sdk/{VERSION}", "Accept": "application/json"}
    if config.api_key is not None:
        if not (config.api_key.isascii() and config.api_key.isprintable()):
            raise ConfigError("the API key contains characters that an HTTP header cannot carry")
        defaults["Authorization"] = f"Bearer {config.api_key}"
    return {
        "base_url": url,
        "headers": defaults | (headers or {}),
        # A corporate HTTP_PROXY must not intercept calls to this machine.
        "trust_env": not is_loopback(url.host),
        "limits": httpx2.Limits(max_connections=None, max_keepalive_connections=20),
    }


def session_headers(options: HttpOptions) -> dict[str, str]:
    """The headers for a WebSocket: those of requests, without ``Accept`` and ``User-Agent``.

    The library ``websockets`` gets the user agent as a separate argument.
    """
    return {name: value for name, value in options["headers"].items() if name not in {"User-Agent", "Accept"}}


@contextmanager
def translate_setup_errors() -> Iterator[None]:
    """Raise ``ConfigError`` if httpx2 rejects the headers or the environment variables that configure it."""
    try:
        yield
    except (ValueError, ImportError, httpx2.InvalidURL, OSError) as exc:
        reason = " ".join(str(exc).split())
        raise ConfigError(
            f"cannot set up HTTP with these headers and this environment: {reason}. Correct ALL_PROXY, "
            "HTTP_PROXY, HTTPS_PROXY (such as http://proxy:3128), SSL_CERT_FILE or the headers; "
            "NO_PROXY=<host> bypasses a proxy."
        ) from exc


def build_request(http: httpx2.Client | httpx2.AsyncClient, request: HttpRequest) -> httpx2.Request:
    """Build httpx2's request. Raises ``ArgumentError`` for a value that no request can carry."""
    try:
        return http.build_request(request.method, request.path, **request_options(request))
    except (ValueError, TypeError, RecursionError) as exc:
        raise ArgumentError(f"{request.method} {request.path} cannot be sent: {exc}") from exc


def is_loopback(host: str) -> bool:
    """Whether the host is `localhost` or a loopback address."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bracket_hint(url: str) -> str:
    """A hint to put the URL's IPv6 address in brackets, or an empty string if no brackets are missing."""
    scheme, separator, rest = url.partition("://")
    address, slash, path = rest.partition("/")
    host, _, port = address.rpartition(":")
    if not (port.isdecimal() and _is_ipv6(host)):
        host, port = address, ""
    if not separator or not _is_ipv6(host):
        return ""
    corrected = f"{scheme}://[{host}]{':' + port if port else ''}{slash}{path}"
    return f"; an IPv6 address needs brackets: {corrected}"


def _is_ipv6(host: str) -> bool:
    try:
        return ip_address(host).version == 6
    except ValueError:
        return False


def request_options(request: HttpRequest) -> RequestOptions:
    """The arguments of httpx2's ``build_request``."""
    return {
        "params": dict(request.params) or None,
        "headers": dict(request.headers),
        "json": request.json,
        "timeout": httpx2.Timeout(request.read_timeout_s, connect=CONNECT_TIMEOUT_S),
    }


def to_reply(response: httpx2.Response, body: bytes = b"") -> Reply:
    """Convert httpx2's response to a :class:`Reply`."""
    return Reply(
        status=response.status_code, headers={k.lower(): v for k, v in response.headers.items()}, body=body
    )


def translate_error(error: Exception, url: str) -> DaybreakError:
    """Convert httpx2's error to an error of this package."""
    if isinstance(error, httpx2.UnsupportedProtocol | httpx2.InvalidURL):
        return ConfigError(f"{url}: {error}")
    reason = str(error) or type(error).__name__
    if isinstance(error, _UNSENT):
        return UnreachableError(f"cannot reach {url}: {reason}")
    return TransportError(f"the connection to {url} broke: {reason}")
