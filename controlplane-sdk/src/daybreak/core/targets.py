"""Where a download goes: a file, a folder, the target of a link, a device, a FIFO or an open descriptor.

A regular file is written under another name and renamed at the end, so no program ever sees it incomplete. A rename
would replace a link, a device or a FIFO instead of writing to it. So links are followed, and whatever is not a regular
file is opened and written to. :func:`check` finds out, before any work starts, whether the path can be written to, and
leaves nothing behind. It does not notice a full disk.
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

PART_SUFFIX_BYTES = len(".") + len(".0123456789abcdef.part")
"""How many bytes longer the name of a part file is than the name of its target."""
_MAX_LINKS = 40


@dataclass(frozen=True, kw_only=True)
class Target:
    """Where the bytes go. ``path`` is the path that the caller sees."""

    path: Path
    file: Path | None
    """The regular file, with links resolved; ``None`` if ``path`` itself is opened and written to."""

    def part(self, sha256: str) -> Path:
        """The hidden part file beside the target. A later download finds it by its name."""
        assert self.file is not None
        name = self.file.name
        if len(os.fsencode(name)) + PART_SUFFIX_BYTES > _name_max(self.file.parent):
            name = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
        return self.file.with_name(f".{name}.{sha256[:16]}.part")


def target_of(path: str | os.PathLike[str] | None, name: str) -> Target:
    """Where the artifact ``name`` goes. If ``path`` is a folder or ends with ``/``, the file is created in it.

    :raises DownloadError: if the artifact's name is not a file name.
    :raises OSError: if links form a loop.
    """
    given = "" if path is None else os.fspath(path)
    if not given or os.path.isdir(given) or _names_folder(given):
        given = os.path.join(given, _file_name(name))
    if _is_special(given):
        return Target(path=Path(given), file=None)
    return Target(path=Path(given), file=Path(os.path.realpath(given)))


def is_stdout(path: str) -> bool:
    """Whether the path is this process's stdout: ``-``, ``/dev/stdout``, ``/dev/fd/1`` or a link to one of them."""
    return path == "-" or _descriptor(path) == 1


def check(path: str | os.PathLike[str] | None, name: str) -> None:
    """Check that the artifact ``name`` can be written to ``path``, and leave nothing behind.

    :raises DownloadError: if the artifact's name is not a file name.
    :raises OSError: with the reason and the path, if the artifact cannot be written.
    """
    target = target_of(path, name)
    if target.file is None:
        if not os.access(target.path, os.W_OK):
            raise _os_error(errno.EACCES, target.path)
        return
    folder = target.file.parent
    missing = [target.file.name]
    while not os.path.lexists(folder):
        missing.append(folder.name)
        folder = folder.parent
    if not folder.is_dir():
        raise _os_error(errno.ENOTDIR, folder)
    for missing_name in missing:
        if len(os.fsencode(missing_name)) > _name_max(folder):
            raise _os_error(errno.ENAMETOOLONG, target.file)
    check_folder(folder)


def check_folder(folder: Path) -> None:
    """Check that files can be created in ``folder``, or in its nearest existing parent.

    :raises OSError: with the reason and the folder, if no file can be created.
    """
    while not os.path.lexists(folder):
        folder = folder.parent
    if not folder.is_dir():
        raise _os_error(errno.ENOTDIR, folder)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise _os_error(errno.EROFS if _is_read_only(folder) else errno.EACCES, folder)


def write_into(source: Path, target: Path) -> None:
    """Write a file's bytes to a device, a FIFO or an open descriptor.

    :raises OSError: with the path of ``target``, if the bytes cannot be written.
    """
    number = _descriptor(os.fspath(target))
    try:
        with (
            source.open("rb") as reader,
            open(target if number is None else os.dup(number), "wb", buffering=0) as writer,
        ):
            shutil.copyfileobj(reader, _FullWriter(writer))
    except OSError as exc:
        exc.filename = exc.filename or os.fspath(target)
        raise


class _FullWriter:
    """Repeats ``write`` until all data is written: one ``write`` of an unbuffered file may write only a part."""

    def __init__(self, file: object) -> None:
        self._file = file

    def write(self, data: bytes) -> None:
        remaining = memoryview(data)
        while remaining:
            remaining = remaining[self._file.write(remaining) :]  # type: ignore[attr-defined]


def _file_name(name: str) -> str:
    file_name = Path(name).name
    if file_name in ("", ".", "..") or "\0" in file_name:
        raise DownloadError(f"the artifact's name {name!r} is not a file name: give a path for the file")
    return file_name


def _names_folder(path: str) -> bool:
    return path.endswith(tuple(separator for separator in (os.sep, os.altsep) if separator))


def _is_special(path: str) -> bool:
    """Whether the path leads to an open descriptor, or to something that is not a regular file."""
    if _descriptor(path) is not None:
        return True
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _descriptor(path: str) -> int | None:
    """The number of the open descriptor, if ``path`` is one (``/dev/stdout``, ``/dev/fd/3``) or a link to one.

    The download is written to this open descriptor. If the descriptor is a file that the shell has opened (``>> log``),
    a rename or a second ``open`` would lose the position in the file.
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


def _os_error(number: int, path: Path) -> OSError:
    return OSError(number, os.strerror(number), os.fspath(path))
