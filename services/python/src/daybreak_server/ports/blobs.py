"""The blob store: a local folder or S3."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

_PROBES = "probe/"


class BlobError(Exception):
    """Base class of the errors of a blob store.

    ``BlobError``
      ├── ``BlobNotFoundError``     the file does not exist: permanent
      │     └── ``BlobKeyError``    the key is invalid, so no file can have it: permanent
      ├── ``BlobExistsError``       the key is taken, and files are never overwritten: permanent
      ├── ``BlobRefusedError``      no permission, no bucket, read-only: lasts until an administrator fixes it
      └── ``BlobUnavailableError``  cannot be reached, timed out, answered 5xx: temporary
    """


class BlobNotFoundError(BlobError):
    """The file does not exist."""


class BlobKeyError(BlobNotFoundError):
    """The key is invalid, so no file can have it."""


class BlobExistsError(BlobError):
    """The key is taken."""


class BlobRefusedError(BlobError):
    """The store refuses the request: permissions, bucket, read-only, full disk."""


class BlobUnavailableError(BlobError):
    """The store cannot be reached at the moment."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlobStat:
    """A stored file."""

    key: str
    size_bytes: int
    content_type: str


def probe_key() -> str:
    """A new key for the file that a probe writes."""
    return f"{_PROBES}{time.time_ns() // 1_000_000}-{secrets.token_hex(8)}"


def probed_at_ms(key: str) -> int | None:
    """When a probe wrote the file with this key; ``None`` for a key that no probe made."""
    millis = key.removeprefix(_PROBES).partition("-")[0]
    return int(millis) if key.startswith(_PROBES) and millis.isdecimal() else None


class Blobs(Protocol):
    """A store of files by key. All calls block.

    A key is a relative path (``a/b.mp4``) of ``[A-Za-z0-9._-]`` segments, without ``..``. A prefix is a path too
    (``a/b`` or ``a/b/``): it names the file with that key and all files below that folder, but not ``a/bc``.
    A key or prefix of any other form raises :class:`BlobKeyError`. Each method may also raise
    :class:`BlobRefusedError` and :class:`BlobUnavailableError`.
    """

    def upload(self, key: str, source: Path, *, content_type: str) -> Iterator[int]:
        """Upload a file part by part. After each part, yield the number of bytes sent so far.

        When the iterator ends, the file is visible, complete and durable. If the caller closes it early, no file is
        left. An existing file is never overwritten.

        :raises BlobExistsError: when the key is taken.
        """

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> BinaryIO:
        """Read a file or a range of it. A range beyond the end is empty. The caller closes the stream.

        :raises BlobNotFoundError: when there is no such file.
        :raises ValueError: when ``start`` or ``length`` is negative.
        """

    def stat(self, key: str) -> BlobStat:
        """The size and content type of a file. :raises BlobNotFoundError: when there is no such file."""

    def url(self, key: str, *, expires_s: float, filename: str | None = None) -> str | None:
        """A URL from which anyone can read the file until the URL expires; ``None`` if the store makes no URLs.

        A local folder makes no URLs. S3 makes them unless the settings turn that off.
        """

    def list(self, prefix: str) -> Iterator[BlobStat]:
        """The files below a prefix (``""``: all files), ordered by key. Content types are guessed from names."""

    def delete(self, prefix: str) -> int:
        """Delete the file whose key is ``prefix``, and every file below ``prefix``. Returns the number of files.

        Also removes what interrupted uploads left behind. ``""`` raises :class:`BlobKeyError`.
        """

    def probe(self) -> None:
        """Write, read and delete a small file. :raises BlobError: with a message that says what to do.

        A process that dies during a probe may leave the file behind. The key of the file says when the file was written
        (:func:`probe_key`).
        """
