"""Rules for URLs, hosts and folders. Messages never quote a refused value, because it may hold a password."""

from __future__ import annotations

import ipaddress
import json
import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator

from daybreak_server.settings.rules import redis_url

FILES: Final = "write file:///absolute/folder, file:relative/folder or s3://bucket/prefix"
SENTINEL_PORT: Final = "26379"
_BUCKET = re.compile(r"[A-Za-z0-9._-]{1,255}")
_HOST_NAME = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_.])?")
_REGION = re.compile(r"(?![0-9]+$)[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")


def absolute_folder(folder: Path) -> Path:
    """Make the path of a folder absolute, because Daybreak's processes run in different working directories.

    :raises ValueError: when the folder cannot be resolved.
    """
    _printable(str(folder))
    try:
        return Path(os.path.abspath(folder.expanduser()))
    except (RuntimeError, OSError) as exc:  # ~user for an unknown user; a deleted working directory
        raise ValueError(f"the folder cannot be resolved ({exc}); write an absolute path") from None


def files_url(url: str) -> str:
    """Check a ``file:`` or ``s3:`` URL. A relative folder becomes absolute. :raises ValueError: what is wrong."""
    parts = _split(url)
    match parts.scheme:
        case "file" if parts.netloc in {"", "localhost"} and parts.path.strip("/"):
            return absolute_folder(Path(unquote(parts.path))).as_uri()
        case "s3" if parts.netloc and not parts.query and not parts.fragment:
            return _bucket_url(url, parts)
    raise ValueError(FILES)


def model_place(place: str | None) -> str | None:
    """Check the place of a model: ``s3://bucket/prefix``, or a folder, which becomes an absolute path.

    :raises ValueError: what is wrong.
    """
    if place is None:
        return None
    scheme = _split(place).scheme
    if scheme == "s3":
        return files_url(place)
    if scheme == "file":
        return unquote(urlsplit(files_url(place)).path)
    if "://" in place:
        raise ValueError(f"a model is a local folder or on S3; {FILES}")
    return str(absolute_folder(Path(place)))


def server_url(url: str | None) -> str | None:
    """Check the URL of a server, ``http://host:port``, without user, query or fragment.

    :raises ValueError: what is wrong.
    """
    if url is None:
        return None
    _printable(url)
    example = "write http://host:9000 or https://host"
    parts = _split(url)
    if parts.scheme not in {"http", "https"}:
        raise ValueError(f"the URL of a server starts with http:// or https://; {example}")
    if "@" in parts.netloc:
        raise ValueError("this URL must not have a user and password; set them as AWS variables or in files")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"the port is not a number from 1 to 65535; {example}") from None
    if port == 0:
        raise ValueError(f"the port is not a number from 1 to 65535; {example}")
    if not host or " " in url or not (_is_ip(host) or _HOST_NAME.fullmatch(host)):
        raise ValueError(f"the host cannot be read; {example}")
    if parts.query or parts.fragment:
        raise ValueError(f"the URL of a server must not have a ? or #; {example}")
    return url


def listening_host(host: str) -> str:
    """Check a name or an address to listen on, without a port. An IPv6 address may have brackets, as in a URL.

    :raises ValueError: if it is neither a name nor an address.
    """
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not (_is_ip(bare) or (bare == host and _HOST_NAME.fullmatch(host))):
        raise ValueError(
            "write only a name or an address, such as 127.0.0.1, 0.0.0.0 or ::1; the port is another setting"
        )
    return bare


def region_name(region: str | None) -> str | None:
    """Check the name of a region of AWS or of another S3 server. :raises ValueError: if no region can have it."""
    if region is not None and not _REGION.fullmatch(region):
        raise ValueError("write the name of a region, such as eu-central-1")
    return region


def key_prefix(prefix: str) -> str:
    """Check the prefix of Redis keys. Braces are refused: they would move a pool's keys to another cluster slot.

    :raises ValueError: if it is empty or longer than 64 characters, or has other characters than those allowed.
    """
    if not re.fullmatch(r"[A-Za-z0-9._:/-]{1,64}", prefix):
        raise ValueError("write 1 to 64 letters, digits and . _ : / -")
    return prefix


def sentinel_addresses(value: Any) -> tuple[str, ...]:
    """Check addresses of Sentinels, ``host:port`` each. A text may hold several, with commas or as a JSON list.

    :raises ValueError: what is wrong.
    """
    listed = value
    if isinstance(value, str):
        with suppress(ValueError):
            listed = json.loads(value)
        listed = listed if isinstance(listed, list) else value.split(",")
    if not isinstance(listed, list | tuple) or not all(isinstance(address, str) for address in listed):
        raise ValueError("write host:port, with commas between several addresses")
    return tuple(_sentinel(address.strip()) for address in listed if address.strip())


def _sentinel(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, SENTINEL_PORT
    name = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if ":" in name and name == host and "/" not in text and "@" not in text:
        raise ValueError(f"write an IPv6 address in brackets, [::1]:{SENTINEL_PORT}")
    valid_port = port.isascii() and port.isdigit() and 0 < int(port) <= 65535
    if not valid_port or not (_is_ip(name) or _HOST_NAME.fullmatch(name)):
        raise ValueError("write host:port, with a port from 1 to 65535 and without redis:// or a password")
    return f"{host}:{port}"


def _redis_url(url: str | None) -> str | None:
    return None if url is None else redis_url.checked(url)


Folder = Annotated[Path, AfterValidator(absolute_folder)]
FilesUrl = Annotated[str, AfterValidator(files_url)]
ModelPlace = Annotated[str | None, AfterValidator(model_place)]
ServerUrl = Annotated[str | None, AfterValidator(server_url)]
CollectorUrl = Annotated[str, AfterValidator(server_url)]
ListeningHost = Annotated[str, AfterValidator(listening_host)]
RegionName = Annotated[str | None, AfterValidator(region_name)]
KeyPrefix = Annotated[str, AfterValidator(key_prefix)]
RedisUrl = Annotated[str | None, AfterValidator(_redis_url)]
SentinelAddresses = Annotated[tuple[str, ...], BeforeValidator(sentinel_addresses)]


def _bucket_url(url: str, parts: SplitResult) -> str:
    if "@" in parts.netloc:
        raise ValueError("this URL must not have access keys; set them as AWS variables or in files")
    if not _BUCKET.fullmatch(parts.netloc):
        raise ValueError(
            "write the name of a bucket after s3:// (letters, digits, . _ -); set the URL of the server in "
            "artifacts.s3.endpoint_url"
        )
    return url.rstrip("/")


def _split(url: str) -> SplitResult:
    _printable(url)
    try:
        return urlsplit(url)
    except ValueError:
        raise ValueError("the URL cannot be read; [ and ] are only for IPv6 addresses") from None


def _printable(text: str) -> None:
    if not text.isprintable():
        shown = ascii(next(c for c in text if not c.isprintable()))
        raise ValueError(f"it contains the unprintable character {shown}; remove it")


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
