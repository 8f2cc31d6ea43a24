"""Translates errors of the operating system into the errors of ``ports.blobs``, with messages that say what to do."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Final

from daybreak_server.ports.blobs import BlobError, BlobNotFoundError, BlobRefusedError, BlobUnavailableError

_NO_LINKS: Final = "the store needs a file system with hard links"
_NO_SPACE: Final = "free some space, or set DAYBREAK_ARTIFACTS__URL to a larger disk"
_IN_THE_WAY: Final = "a file or symbolic link has the name of a folder; remove it"
_REFUSALS: Final = {
    errno.ENOSPC: _NO_SPACE,
    errno.EDQUOT: _NO_SPACE,
    errno.EFBIG: "this process may not write files of this size; raise its limit (ulimit -f)",
    errno.EROFS: "mount it writable, or set DAYBREAK_ARTIFACTS__URL to another folder",
    errno.EACCES: "give this process's user the right to read and write there",
    errno.EPERM: _NO_LINKS,
    errno.EOPNOTSUPP: _NO_LINKS,
    errno.EMLINK: _NO_LINKS,
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EEXIST: _IN_THE_WAY,
    errno.ENAMETOOLONG: "this file system allows only shorter names",
}


def translate(exc: OSError, *, root: Path, key: str) -> BlobError:
    """The error of ``ports.blobs`` for an error of the operating system at ``key`` in the folder ``root``."""
    if exc.errno in {errno.ENOENT, errno.ELOOP}:
        return BlobNotFoundError(f"there is no file {key} in {root}")
    where = f"{root / key}: {exc.strerror or exc}"
    if exc.errno in _REFUSALS:
        return BlobRefusedError(f"{where}; {_REFUSALS[exc.errno]}")
    return BlobUnavailableError(where)
