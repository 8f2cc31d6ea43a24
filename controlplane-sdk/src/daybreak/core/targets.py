"""Where a download goes: a file, a folder, the file that a link points to, or something to write into.

A file is put in place at once, by a rename, so that nobody ever sees half of it. A rename would replace a device, a
FIFO or a link itself, so links are followed and what is no plain file is written into. :func:`check` finds out
before any work is done whether that can succeed.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import stat
from dataclasses import dataclass
from pathlib import Path

from daybreak.errors import DownloadError

PART_ROOM = len(".") + len(".0123456789abcdef.part")
"""Bytes by which the name of a part file is longer than its target's."""
_MAX_LINKS = 40


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where the bytes go. ``path`` is what the caller is given back."""

    path: Path
    file: Path | None
    """The plain file, with links followed; ``None`` for what is written into."""

    def part(self, sha256: str) -> Path:
        """The hidden file beside it that holds the bytes so far; a later call finds it by its name."""
        assert self.file is not None
        name = self.file.name
        if len(os.fsencode(name)) + PART_ROOM > _name_max(self.file.parent):
            name = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
        return self.file.with_name(f".{name}.{sha256[:16]}.part")


def target_of(path: str | os.PathLike[str] | None, name: str) -> Target:
    """Where an artifact ``name`` goes. A folder that exists, or a path that ends with ``/``, holds the file.

    :raises DownloadError: when the artifact's name is no file name.
    :raises OSError: when links lead in a circle.
    """
    given = "" if path is None else os.fspath(path)
    if not given or os.path.isdir(given) or _names_folder(given):
        given = os.path.join(given, _file_name(name))
    if _is_special(given):
        return Target(path=Path(given), file=None)
    return Target(path=Path(given), file=Path(os.path.realpath(given)))


def is_stdout(path: str) -> bool:
    """Whether the path means this process's stdout: ``-``, ``/dev/stdout`` or a link to it."""
    return path == "-" or _descriptor(path) == 1


def check(path: str | os.PathLike[str] | None, name: str) -> None:
    """Find out whether a download could be written there, without leaving anything.

    :raises OSError: with the reason and the path, when it could not.
    """
    target = target_of(path, name)
    if target.file is None:
        if not os.access(target.path, os.W_OK):
            raise _refused(errno.EACCES, target.path)
        return
    folder = target.file.parent
    missing = [target.file.name]
    while not os.path.lexists(folder):
        missing.append(folder.name)
        folder = folder.parent
    if not folder.is_dir():
        raise _refused(errno.ENOTDIR, folder)
    for part in missing:
        if len(os.fsencode(part)) > _name_max(folder):
            raise _refused(errno.ENAMETOOLONG, target.file)
    check_folder(folder)


def check_folder(folder: Path) -> None:
    """Whether files can be made in ``folder``, or in the nearest folder above it that exists.

    :raises OSError: with the reason and the folder, when they cannot.
    """
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise _refused(errno.ENOTDIR, folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _refused(errno.EROFS if _is_read_only(folder) else errno.EACCES, folder)


def write_into(source: Path, target: Path) -> None:
    """Write a file's bytes into a device, a FIFO or an open descriptor.

    :raises OSError: naming ``target``.
    """
    number = _descriptor(os.fspath(target))
    try:
        with (
            source.open("rb") as whole,
            open(target if number is None else os.dup(number), "wb", buffering=0) as into,
        ):
            shutil.copyfileobj(whole, _All(into))
    except OSError as exc:
        exc.filename = exc.filename or os.fspath(target)
        raise


class _All:
    """An unbuffered file takes a part of what it is given; this one writes all of it."""

    def __init__(self, file: object) -> None:
        self._file = file

    def write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            left = left[self._file.write(left) :]  # type: ignore[attr-defined]


def _file_name(name: str) -> str:
    last = Path(name).name
    if last in ("", ".", "..") or "\0" in last:
        raise DownloadError(f"the artifact's name {name!r} is no file name: say where it goes")
    return last


def _names_folder(path: str) -> bool:
    return path.endswith(tuple(one for one in (os.sep, os.altsep) if one))


def _is_special(path: str) -> bool:
    """Whether the path leads to something that is no plain file, or to a file that is already open."""
    if _descriptor(path) is not None:
        return True
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _descriptor(path: str) -> int | None:
    """The number behind ``/dev/stdout``, ``/dev/fd/3`` or a link to such.

    A file that the shell has opened there (``>> log``) has a position, which a rename or another ``open`` would lose.
    """
    for _ in range(_MAX_LINKS):
        folder, name = os.path.split(os.path.abspath(path))
        if name.isdecimal() and os.path.realpath(folder) in (f"/proc/{os.getpid()}/fd", "/dev/fd"):
            return int(name)
        try:
            path = os.path.join(folder, os.readlink(path))
        except OSError:
            return None
    return None


def _name_max(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):
        return 255


def _is_read_only(folder: Path) -> bool:
    try:
        return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)
    except (AttributeError, OSError):
        return False


def _refused(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), os.fspath(path))
