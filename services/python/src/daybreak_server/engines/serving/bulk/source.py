"""Finds the file that a task names, and copies it to the attempt's scratch folder.

A task cannot name a URL or a folder. It names either an artifact, or a path in one of the *places* that the pool's
setting ``bulk.places`` lists. If it names an artifact, the API has already looked up the artifact's key for the
caller's tenant. Each place is opened as a blob store, so a path is a key of that store. A key has no ``..``, and is
never followed through a symbolic link.

The file is copied before its first line is read. So an attempt sees one version of the file, even if the file changes.
The SHA-256 of the copy tells the next attempt whether the file is still the same.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from daybreak_server.ports.blobs import BlobError, BlobNotFoundError, Blobs
from daybreak_server.workloads.base import PermanentError, RetryableError
from daybreak_server.workloads.bulk import BulkArtifact, BulkInput

_PIECE = 1 << 20
NOT_FOUND = "input_not_found"
TOO_LARGE = "input_too_large"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLimits:
    """The limits of a file."""

    max_bytes: int = 1 << 30
    max_line_bytes: int = 1 << 20
    max_lines: int = 1_000_000


@dataclass(slots=True)
class Copy:
    """The copy of a file. Its fields are final when :func:`copy` has ended."""

    path: Path
    size_bytes: int = 0
    lines: int = 0
    sha256: str = ""


Places = Mapping[str, Callable[[], Blobs]]
"""For the name of each place, the function that opens the place."""


def located(
    file: BulkInput | BulkArtifact, places: Places, artifacts: Callable[[], Blobs]
) -> tuple[Blobs, str]:
    """The store that has the file, and its key there.

    :raises PermanentError: if there is no such place, or the task does not have the artifact's key.
    :raises RetryableError: if the place cannot be opened.
    """
    if isinstance(file, BulkArtifact):
        if file.key is None or not file.key.startswith(f"{file.task}/"):
            raise PermanentError(
                "The input does not say where the artifact is stored. Submit the task again.", code=NOT_FOUND
            )
        return artifacts(), file.key
    if file.place not in places:
        known = ", ".join(sorted(places)) or "none"
        message = f"This pool has no place {file.place!r} for files. The setting `bulk.places` has: {known}."
        raise PermanentError(message, code=NOT_FOUND)
    try:
        return places[file.place](), file.path
    except BlobError as exc:
        raise RetryableError(
            f"The place {file.place!r} cannot be opened: {exc}", code="input_unavailable"
        ) from exc


def copy(blobs: Blobs, key: str, to: Copy, limits: FileLimits) -> Iterator[None]:
    """Copy the file, and yield after each piece.

    :raises PermanentError: if there is no such file, or it is larger than the limits.
    :raises RetryableError: if the file cannot be read now.
    """
    digest, ended = hashlib.sha256(), True
    try:
        with blobs.open(key) as source, to.path.open("wb") as target:
            while piece := source.read(_PIECE):
                to.size_bytes += len(piece)
                if to.size_bytes > limits.max_bytes:
                    message = f"The file has more than {limits.max_bytes} bytes. Submit it in several parts."
                    raise PermanentError(message, code=TOO_LARGE)
                digest.update(piece)
                to.lines += piece.count(b"\n")
                ended = piece.endswith(b"\n")
                if to.lines + (not ended) > limits.max_lines:
                    message = f"The file has more than {limits.max_lines} lines. Submit it in several parts."
                    raise PermanentError(message, code=TOO_LARGE)
                target.write(piece)
                yield
    except BlobNotFoundError as exc:
        raise PermanentError(f"The file of the task does not exist: {exc}", code=NOT_FOUND) from exc
    except BlobError as exc:
        raise RetryableError(f"The file of the task cannot be read: {exc}", code="input_unavailable") from exc
    to.lines += not ended
    to.sha256 = digest.hexdigest()
