"""Valid keys, and the content types of files, for both blob stores: S3 and a local folder."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from daybreak_server.domain.artifact_names import is_content_type
from daybreak_server.ports.blobs import BlobKeyError, BlobRefusedError

_SEGMENT = re.compile(r"[A-Za-z0-9._-]{1,200}")
_MAX_KEY = 900
"""S3 allows 1,024 bytes for a key together with the store's prefix."""

UNKNOWN_TYPE = "application/octet-stream"

_BY_EXTENSION = {
    ".bin": UNKNOWN_TYPE,
    ".gif": "image/gif",
    ".jpg": "image/jpeg",
    ".json": "application/json",
    ".mp4": "video/mp4",
    ".png": "image/png",
    ".safetensors": UNKNOWN_TYPE,
    ".txt": "text/plain; charset=utf-8",
    ".webp": "image/webp",
}


def segments(key: str) -> tuple[str, ...]:
    """The segments of a key. :raises BlobKeyError: when it is not a relative path of plain names."""
    parts = tuple(key.split("/"))
    for part in parts:
        if not _SEGMENT.fullmatch(part) or part in {".", ".."}:
            raise BlobKeyError(
                f"{key[:200]!r} is not a valid key; use names of A-Z a-z 0-9 . _ - separated by /"
            )
    if len(key) > _MAX_KEY:
        raise BlobKeyError(
            f"{key[:80]!r}… is not a valid key: it has {len(key)} characters; at most {_MAX_KEY} are allowed"
        )
    return parts


def prefix_segments(prefix: str) -> tuple[str, ...]:
    """The segments of a prefix. ``a/b`` and ``a/b/`` are the same; ``""`` has no segments.

    :raises BlobKeyError: for a prefix of another form.
    """
    return segments(prefix.removesuffix("/")) if prefix else ()


def type_by_name(key: str) -> str:
    """The content type that a file name implies. It comes from a fixed table, so it is the same on every machine."""
    return _BY_EXTENSION.get(PurePosixPath(key).suffix.lower(), UNKNOWN_TYPE)


def checked_type(content_type: str) -> str:
    """Return ``content_type`` unchanged.

    :raises BlobRefusedError: when it is not valid in a ``Content-Type`` header.
    """
    if not is_content_type(content_type):
        raise BlobRefusedError(f"{content_type[:100]!r} is not a content type; use one such as 'video/mp4'")
    return content_type
