"""The store of files: a local folder or S3."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

_PROBES = "probe/"


class BlobError(Exception):
    """Base of what a blob store raises.

    ``BlobError``
      ├── ``BlobNotFoundError``     there is no such file: permanent
      │     └── ``BlobKeyError``    nor can there be one: the key is not a valid one
      ├── ``BlobExistsError``       the key is taken, and files are never overwritten: permanent
      ├── ``BlobRefusedError``      no right, no such bucket, read-only: permanent until somebody mends it
      └── ``BlobUnavailableError``  cannot be reached, timed out, answered 5xx: temporary
    """


class BlobNotFoundError(BlobError):
    """There is no such file."""


class BlobKeyError(BlobNotFoundError):
    """The key is not a valid one, so no file can have it."""


class BlobExistsError(BlobError):
    """The key is taken."""


class BlobRefusedError(BlobError):
    """The store refuses: rights, bucket, read-only, full disk."""


class BlobUnavailableError(BlobError):
    """The store cannot be reached for now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobStat:
    """A stored file."""

    key: str
    size_bytes: int
    content_type: str


def probe_key() -> str:
    """Where a probe may write now."""
    return f"{_PROBES}{time.time_ns() // 1_000_000}-{secrets.token_hex(8)}"


def probed_at_ms(key: str) -> int | None:
    """When a probe wrote that file; ``None`` for what is none of a probe's."""
    made = key.removeprefix(_PROBES).partition("-")[0]
    return int(made) if key.startswith(_PROBES) and made.isdecimal() else None


class Blobs(Protocol):
    """Keys are relative paths (``a/b.mp4``) of ``[A-Za-z0-9._-]`` segments; no ``..``. Blocking calls.

    A prefix is a path as well (``a/b`` or ``a/b/``): it names the file of that key and all files below it as
    a folder, never ``a/bc``. Any call with a key of another form raises :class:`BlobKeyError`.
    """

    def upload(self, key: str, source: Path, *, content_type: str) -> Iterator[int]:
        """Send a file part by part; yields the bytes sent so far after each part. The file is visible, whole
        and durable, when the iterator ends; closing it early leaves nothing. Never overwrites."""

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> BinaryIO:
        """Read a file or a range of it; a range beyond the end is empty. The caller closes it."""

    def stat(self, key: str) -> BlobStat:
        """Size and type."""

    def url(self, key: str, *, expires_s: float, filename: str | None = None) -> str | None:
        """A URL that anyone can read until it expires, or ``None`` where there is no such thing."""

    def list(self, prefix: str) -> Iterator[BlobStat]:
        """The files below a prefix (``""``: all), in the order of their keys; types are guessed by name."""

    def delete(self, prefix: str) -> int:
        """Remove every file below a prefix (or the one file of that key); how many there were.

        What an upload that died has left there goes too. ``""`` raises :class:`BlobKeyError`.
        """

    def probe(self) -> None:
        """Write, read and delete a small file. :raises BlobError: saying what to do.

        One that dies in the middle leaves its file; its key (:func:`probe_key`) says since when.
        """
