"""``python fuse.py FOLDER``: a file system in memory that, in a crash, loses what was not fsynced.

The idea is LazyFS's: writes stay in a cache until ``fsync`` or ``fdatasync`` of their file, and a crash drops the
cache. Names (create, rename, remove) are durable at once, as in LazyFS. A crash also undoes unsynced changes of the
length of a file.

Write a command (``crash``, ``limit BYTES``, ``limit none``) to the file ``.control``, or read counts from it as JSON.
The kernel caches nothing, so a process that reads after a crash sees only the bytes that survived it.
"""

from __future__ import annotations

import errno
import json
import stat
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import mfusepy  # type: ignore[import-untyped]

CONTROL = "/.control"


@dataclass(slots=True)
class _File:
    """A file: the bytes that processes see and the bytes that survive a crash."""

    mode: int = 0o644
    seen: bytearray = field(default_factory=bytearray)
    durable: bytearray = field(default_factory=bytearray)
    clean_to: int = 0
    """How many bytes at the start are equal in ``seen`` and ``durable``. A sync copies only the bytes after these."""
    changed: float = field(default_factory=time.time)

    def sync(self) -> None:
        del self.durable[self.clean_to :]
        self.durable += self.seen[self.clean_to :]
        self.clean_to = len(self.seen)

    def forget(self) -> int:
        """Drop unsynced bytes. :returns: how many."""
        lost_bytes = len(self.seen) - self.clean_to
        self.seen = bytearray(self.durable)
        self.clean_to = len(self.seen)
        return max(0, lost_bytes)

    def dirty_from(self, at: int) -> None:
        self.clean_to = min(self.clean_to, at)
        self.changed = time.time()


class Forgetful(mfusepy.Operations):  # type: ignore[misc]
    """A tree of folders in memory. Single-threaded."""

    use_ns = True

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._open: dict[int, _File] = {}
        self._folders: set[str] = {"/"}
        self._handles = 0
        self._limit: int | None = None
        self._counts = {"fsyncs": 0, "crashes": 0, "forgotten_bytes": 0, "no_space": 0}

    # ── the control file ─────────────────────────────────────────────────────────────────────────────────

    def _run_command(self, command: str) -> None:
        match command.split():
            case ["crash"]:
                self._counts["crashes"] += 1
                self._counts["forgotten_bytes"] += sum(file.forget() for file in self._files.values())
            case ["limit", "none"]:
                self._limit = None
            case ["limit", count]:
                self._limit = int(count)
            case _:
                raise mfusepy.FuseOSError(errno.EINVAL)

    def _state(self) -> bytes:
        return json.dumps({**self._counts, "bytes": self._size()}).encode()

    def _size(self) -> int:
        return sum(len(file.seen) for file in self._files.values())

    # ── names ────────────────────────────────────────────────────────────────────────────────────────────

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:
        if path == CONTROL:
            return self._attributes(stat.S_IFREG | 0o600, len(self._state()), time.time())
        if path in self._folders:
            return self._attributes(stat.S_IFDIR | 0o755, 0, 0.0)
        file = self._file(path, fh)
        return self._attributes(stat.S_IFREG | file.mode, len(file.seen), file.changed)

    @staticmethod
    def _attributes(mode: int, size: int, at: float) -> dict[str, Any]:
        ns = int(at * 1e9)
        return {
            "st_mode": mode,
            "st_size": size,
            "st_nlink": 1,
            **dict.fromkeys(("st_atime", "st_mtime", "st_ctime"), ns),
        }

    def readdir(self, path: str, fh: int) -> list[str]:
        below = path.rstrip("/") + "/"
        names = {
            name[len(below) :]
            for name in (*self._files, *self._folders)
            if name.startswith(below) and name != below
        }
        return [".", "..", *sorted(name for name in names if name and "/" not in name)]

    def mkdir(self, path: str, mode: int) -> None:
        self._folders.add(path)

    def rmdir(self, path: str) -> None:
        self._folders.discard(path)

    def unlink(self, path: str) -> None:
        self._file(path)
        del self._files[path]

    def rename(self, old: str, new: str) -> None:
        self._files[new] = self._file(old)
        del self._files[old]

    def chmod(self, path: str, mode: int) -> None:
        self._file(path).mode = stat.S_IMODE(mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        return None

    def utimens(self, path: str, times: Any = None) -> None:
        return None

    def statfs(self, path: str) -> dict[str, int]:
        free = 1 << 20 if self._limit is None else max(0, self._limit - self._size()) // 4096
        return {"f_bsize": 4096, "f_frsize": 4096, "f_blocks": 1 << 20, "f_bavail": free, "f_bfree": free}

    # ── contents ─────────────────────────────────────────────────────────────────────────────────────────

    def create(self, path: str, mode: int, fi: Any = None) -> int:
        self._files[path] = _File(stat.S_IMODE(mode))
        return self._handle(path)

    def open(self, path: str, flags: int) -> int:
        return self._handle(path)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        if path == CONTROL:
            return self._state()[offset : offset + size]
        return bytes(self._file(path, fh).seen[offset : offset + size])

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        if path == CONTROL:
            self._run_command(data.decode())
            return len(data)
        file = self._file(path, fh)
        grows = max(0, offset + len(data) - len(file.seen))
        if self._limit is not None and grows and self._size() + grows > self._limit:
            self._counts["no_space"] += 1
            raise mfusepy.FuseOSError(errno.ENOSPC)
        if offset > len(file.seen):
            file.dirty_from(len(file.seen))
            file.seen.extend(bytes(offset - len(file.seen)))
        file.dirty_from(offset)
        file.seen[offset : offset + len(data)] = data
        return len(data)

    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        if path == CONTROL:
            return
        file = self._file(path, fh)
        file.dirty_from(min(length, len(file.seen)))
        if length < len(file.seen):
            del file.seen[length:]
        else:
            file.seen.extend(bytes(length - len(file.seen)))

    def fsync(self, path: str, datasync: int, fh: int) -> None:
        if path != CONTROL:
            self._file(path, fh).sync()
            self._counts["fsyncs"] += 1

    def flush(self, path: str, fh: int) -> None:
        """Closing a file makes nothing durable."""

    def release(self, path: str, fh: int) -> None:
        self._open.pop(fh, None)

    def fsyncdir(self, path: str, datasync: int, fh: int) -> None:
        """Names are durable at once."""

    def _handle(self, path: str) -> int:
        self._handles += 1
        if path != CONTROL:
            self._open[self._handles] = self._file(path)
        return self._handles

    def _file(self, path: str, fh: int | None = None) -> _File:
        """The file of a handle, or else of a path: a handle outlives a rename or removal of its file."""
        file = self._open.get(fh) if fh else None
        file = file or self._files.get(path)
        if file is None:
            raise mfusepy.FuseOSError(errno.ENOENT)
        return file


def main() -> None:
    """Mount and serve until unmounted."""
    mfusepy.FUSE(
        Forgetful(),
        sys.argv[1],
        foreground=True,
        nothreads=True,
        direct_io=True,
        attr_timeout=0,
        entry_timeout=0,
        negative_timeout=0,
        fsname="forgetful",
        hard_remove=True,
    )


if __name__ == "__main__":
    main()
