"""Checks the URL of a Redis server, because redis-py accepts too much.

redis-py takes any argument of its connections from the query of the URL, which overrides what the program passes:
``protocol=3`` or ``decode_responses=True`` change the type of every reply and break everything. So this module accepts
only options that do not change replies. redis-py also ignores parts that it cannot use (a database that is not a
number, the host of a ``unix://`` URL), and its error messages quote the password. This module refuses such parts, with
messages that never quote the user, the password or a value.

The server and the SDK's relay each have a copy of this module, because neither may import the other. A test compares
the copies.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from typing import Final
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

FORMS: Final = "write redis://host:6379/0, rediss://… (TLS) or unix:///path"
OPTIONS: Final[Mapping[str, tuple[str, str]]] = {
    "client_name": (r"[!-~]{1,64}", "text without spaces"),
    "db": (r"\d{1,9}", "a number"),
    "ssl_ca_certs": (r".+", "a file"),
    "ssl_cert_reqs": (r"none|optional|required", "none, optional or required"),
    "ssl_certfile": (r".+", "a file"),
    "ssl_check_hostname": (r"(?i:true|false)", "true or false"),
    "ssl_keyfile": (r".+", "a file"),
}
"""Allowed option → its value, as a pattern and in words."""
MAX_PATH_BYTES: Final = 103 if sys.platform == "darwin" else 107
"""The kernel's limit for the path of a Unix socket."""

_ESCAPE = "write characters such as / ? # @ in the user or password percent-encoded (%2F %3F %23 %40)"
_HOST = re.compile(r"[^\s/?#@\[\]:,]+|\[[0-9A-Fa-f:.%a-z]+\]")


def checked(url: str) -> str:
    """Check a URL. :returns: the URL without surrounding space.

    :raises ValueError: if the URL is refused. The message says what to write instead. It never quotes the URL, except
        the name of an option.
    """
    url = url.strip()
    if any(not c.isprintable() or c.isspace() for c in url):
        raise ValueError(f"the URL contains a space or a control character; {_ESCAPE}, a space as %20")
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(f"the host cannot be read; {_ESCAPE}, [ and ] as %5B and %5D") from None
    if parts.scheme not in {"redis", "rediss", "unix"}:
        raise ValueError(FORMS)
    if parts.fragment or url.endswith("#"):
        raise ValueError(f"the URL contains a #; {_ESCAPE}")
    if parts.scheme == "unix":
        _check_socket(parts)
    else:
        _check_server(parts)
    _check_options(parts)
    return url


def _check_server(parts: SplitResult) -> None:
    place = parts.netloc.rpartition("@")[2]
    host, colon, port = place, "", ""
    if not place.endswith("]"):
        host, colon, port = place.rpartition(":") if ":" in place else (place, "", "")
    if host and not _HOST.fullmatch(host):
        raise ValueError(
            f"the host cannot be read; {_ESCAPE}, and put an IPv6 address in brackets: redis://[::1]:6379/0"
        )
    if colon and not (port.isascii() and port.isdigit() and 0 < int(port) <= 65535):
        raise ValueError(f"the port is not a number from 1 to 65535; {_ESCAPE}; {FORMS}")
    if not re.fullmatch(r"/?|/\d{1,9}", parts.path):
        raise ValueError(f"the database after the host is not a number; {_ESCAPE}; {FORMS}")


def _check_socket(parts: SplitResult) -> None:
    _user, _at, host = parts.netloc.rpartition("@")
    if host:
        raise ValueError(
            f"a unix:// URL must not have a host; write unix:///path or unix://user:password@/path; {_ESCAPE}"
        )
    path = unquote(parts.path)
    if not path.startswith("/") or path.endswith("/"):
        raise ValueError("write the absolute path of the socket: unix:///path?db=0")
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise ValueError(f"the path of the socket has more than {MAX_PATH_BYTES} bytes; use a shorter one")


def _check_options(parts: SplitResult) -> None:
    if "@" in parts.query:
        raise ValueError(f"the URL has an @ after a ?; {_ESCAPE}")
    try:
        options = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True) if parts.query else []
    except ValueError:
        raise ValueError(f"the text after the ? is not option=value; {_ESCAPE}") from None
    names = [name for name, _ in options]
    for name, value in options:
        if name not in OPTIONS:
            raise ValueError(
                f"the URL has an unknown option{_quoted(name)}; the known options are {', '.join(OPTIONS)}"
            )
        pattern, words = OPTIONS[name]
        if not re.fullmatch(pattern, value):
            raise ValueError(f"the URL's option {name} is not {words}")
        if names.count(name) > 1:
            raise ValueError(f"the URL has the option {name} twice; keep one of them")
        if name.startswith("ssl_") and parts.scheme != "rediss":
            raise ValueError(f"the URL's option {name} needs TLS; write rediss://…")
    if ("ssl_certfile" in names) != ("ssl_keyfile" in names):
        raise ValueError("the URL's options ssl_certfile and ssl_keyfile need each other; set both")
    if "db" in names and parts.scheme != "unix" and parts.path.strip("/"):
        raise ValueError("the URL has the database twice; remove the option db")


def _quoted(name: str) -> str:
    """The name of an option with a space before it; empty if the name might be a part of a password."""
    return f" {name}" if re.fullmatch(r"[a-z][a-z_]{0,40}", name) else ""
