"""Addresses of settings: URLs, hosts and folders. What is refused is never quoted: it may hold a password."""

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
    """One Daybreak has processes in several working directories: a relative folder is resolved at once.

    :raises ValueError: when it cannot be.
    """
    _printable(str(folder))
    try:
        return Path(os.path.abspath(folder.expanduser()))
    except (RuntimeError, OSError) as exc:  # ~somebody who is not there; a working directory that was deleted
        raise ValueError(f"the folder cannot be resolved ({exc}); write an absolute path") from None


def files_url(url: str) -> str:
    """``file:`` and ``s3:`` URLs; a relative folder becomes absolute."""
    parts = _split(url)
    match parts.scheme:
        case "file" if parts.netloc in {"", "localhost"} and parts.path.strip("/"):
            return absolute_folder(Path(unquote(parts.path))).as_uri()
        case "s3" if parts.netloc and not parts.query and not parts.fragment:
            return _bucket_url(url, parts)
    raise ValueError(FILES)


def model_place(place: str | None) -> str | None:
    """``s3://bucket/prefix`` as it is; a folder, or ``file:`` and a folder, as an absolute path."""
    if place is None:
        return None
    scheme = _split(place).scheme
    if scheme == "s3":
        return files_url(place)
    if scheme == "file":
        return unquote(urlsplit(files_url(place)).path)
    if "://" in place:
        raise ValueError(f"a model is a folder or on S3; {FILES}")
    return str(absolute_folder(Path(place)))


def server_url(url: str | None) -> str | None:
    """``http://host:port`` of a server, without user, query and fragment."""
    if url is None:
        return None
    _printable(url)
    example = "write http://host:9000 or https://host"
    parts = _split(url)
    if parts.scheme not in {"http", "https"}:
        raise ValueError(f"the address of a server begins with http:// or https://; {example}")
    if "@" in parts.netloc:
        raise ValueError("user and password are no part of this URL; give them as AWS variables or in files")
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError(f"the port is not a number from 1 to 65535; {example}") from None
    if not host or port == 0 or " " in url or not (_is_ip(host) or _HOST_NAME.fullmatch(host)):
        raise ValueError(f"the host cannot be read; {example}")
    if parts.query or parts.fragment:
        raise ValueError(f"the address of a server has no ? and no #; {example}")
    return url


def listening_host(host: str) -> str:
    """A name or an address to listen on: no URL, no port. An IPv6 address may have the brackets of a URL."""
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not (_is_ip(bare) or (bare == host and _HOST_NAME.fullmatch(host))):
        raise ValueError(
            "write a name or an address alone, such as 127.0.0.1, 0.0.0.0 or ::1; the port is a setting"
        )
    return bare


def region_name(region: str | None) -> str | None:
    """The name of a region of AWS, or of whatever a server takes for one."""
    if region is not None and not _REGION.fullmatch(region):
        raise ValueError("write the name of a region, such as eu-central-1")
    return region


def key_prefix(prefix: str) -> str:
    """What Redis keys begin with. Braces would move a pool's keys into another slot of a cluster."""
    if not re.fullmatch(r"[A-Za-z0-9._:/-]{1,64}", prefix):
        raise ValueError("write 1 to 64 letters, digits and . _ : / -")
    return prefix


def sentinel_addresses(given: Any) -> tuple[str, ...]:
    """``host:port`` of each; text may name several, with commas between them or as a JSON array."""
    listed = given
    if isinstance(given, str):
        with suppress(ValueError):
            listed = json.loads(given)
        listed = listed if isinstance(listed, list) else given.split(",")
    if not isinstance(listed, list | tuple) or not all(isinstance(one, str) for one in listed):
        raise ValueError("write host:port, and commas between several")
    return tuple(_sentinel(one.strip()) for one in listed if one.strip())


def _sentinel(text: str) -> str:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, port = text, SENTINEL_PORT
    name = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if ":" in name and name == host and "/" not in text:
        raise ValueError(f"write an IPv6 address in brackets, [::1]:{SENTINEL_PORT}, not {text!r}")
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
ListeningHost = Annotated[str, AfterValidator(listening_host)]
RegionName = Annotated[str | None, AfterValidator(region_name)]
KeyPrefix = Annotated[str, AfterValidator(key_prefix)]
RedisUrl = Annotated[str | None, AfterValidator(_redis_url)]
SentinelAddresses = Annotated[tuple[str, ...], BeforeValidator(sentinel_addresses)]


def _bucket_url(url: str, parts: SplitResult) -> str:
    if "@" in parts.netloc:
        raise ValueError("access keys are no part of the URL; give them as AWS variables or in files")
    if not _BUCKET.fullmatch(parts.netloc):
        raise ValueError(
            "s3:// is followed by the name of a bucket (letters, digits, . _ -); the address of the server is "
            "artifacts.s3.endpoint_url"
        )
    return url.rstrip("/")


def _split(url: str) -> SplitResult:
    _printable(url)
    try:
        return urlsplit(url)
    except ValueError:
        raise ValueError("the URL cannot be read: it has a [ or ] that is no IPv6 address") from None


def _printable(text: str) -> None:
    if any(not c.isprintable() for c in text):
        raise ValueError("there is a control character in it; remove it")


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
