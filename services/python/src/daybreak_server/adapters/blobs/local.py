"""The blob store in a local folder.

Each segment of a key is opened relative to its parent's descriptor and never through a symbolic link, so no key
can escape the folder. Keys never contain ``~``, so names that begin with it belong to the store:
``~part-<nonce>`` is an unfinished upload, and ``~type-<name>`` contains the content type of a file whose
name does not imply it.

An upload writes and syncs a ``~part`` file, and then links it under the name of the file. A hard link never replaces a
file, so files are never overwritten and never visible before they are complete.
"""

from __future__ import annotations

import io
import os
import secrets
import stat as modes
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

from daybreak_server.adapters.blobs.blob_keys import checked_type, prefix_segments, segments, type_by_name
from daybreak_server.adapters.blobs.local_errors import translate
from daybreak_server.ports.blobs import (
    BlobError,
    BlobExistsError,
    BlobKeyError,
    BlobNotFoundError,
    BlobRefusedError,
    BlobStat,
    BlobUnavailableError,
    probe_key,
)

PART_BYTES: Final = 4 << 20
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_WALK_TRIES: Final = 20
"""How many times one call tries to reach a folder. A try fails if another call removes an empty folder on the path."""


class LocalBlobs:
    """Files below ``root``, which is created if it is missing. Threads and processes may share the folder."""

    def __init__(self, root: Path) -> None:
        """:raises BlobRefusedError: when the folder neither exists nor can be created."""
        self.root = Path(os.path.abspath(root))
        try:
            with self._translated(""):
                self.root.mkdir(parents=True, exist_ok=True)
                self._close(self._open_root())
        except BlobNotFoundError as exc:
            raise BlobRefusedError(
                f"{self.root}: the folder cannot be created; set DAYBREAK_ARTIFACTS__URL to another folder"
            ) from exc

    def upload(self, key: str, source: Path, *, content_type: str) -> Iterator[int]:
        """See :class:`~daybreak_server.ports.blobs.Blobs`. Yields after each part of 4 MiB."""
        parts = segments(key)
        content_type = checked_type(content_type)
        with source.open("rb") as reader, self._translated(key):
            try:
                with self._part(parts, key) as (chain, part, writer):
                    yield from _copy(reader, writer)
                    _publish(chain[-1], part, parts[-1], key=key, content_type=content_type)
                    for descriptor in reversed(chain):
                        os.fsync(descriptor)
            except BaseException:
                self._prune(parts[:-1])
                raise

    def open(self, key: str, *, start: int = 0, length: int | None = None) -> BinaryIO:
        """See :class:`~daybreak_server.ports.blobs.Blobs`."""
        if start < 0 or (length is not None and length < 0):
            raise ValueError(f"start and length must not be negative: {start}, {length}")
        with self._translated(key), self._file(key) as (file, _):
            raw = os.fdopen(os.dup(file), "rb", buffering=0)
        raw.seek(start)
        return io.BufferedReader(raw if length is None else cast(io.RawIOBase, _Bounded(raw, length)))

    def stat(self, key: str) -> BlobStat:
        """See :class:`~daybreak_server.ports.blobs.Blobs`."""
        with self._translated(key), self._file(key) as (file, folder):
            name = segments(key)[-1]
            return BlobStat(key=key, size_bytes=os.fstat(file).st_size, content_type=_type_of(folder, name))

    def url(self, key: str, *, expires_s: float, filename: str | None = None) -> str | None:
        """``None``: the API serves local files itself."""
        segments(key)
        return None

    def list(self, prefix: str) -> Iterator[BlobStat]:
        """See :class:`~daybreak_server.ports.blobs.Blobs`."""
        parts = prefix_segments(prefix)
        if parts:
            with suppress(BlobNotFoundError):
                file = self.stat("/".join(parts))
                yield BlobStat(key=file.key, size_bytes=file.size_bytes, content_type=type_by_name(file.key))
        with self._translated(prefix):
            yield from self._walk(parts)

    def delete(self, prefix: str) -> int:
        """See :class:`~daybreak_server.ports.blobs.Blobs`. Also removes folders that become empty."""
        parts = prefix_segments(prefix)
        if not parts:
            raise BlobKeyError("the prefix is empty; deleting the whole store is not allowed")
        with self._translated(prefix):
            try:
                with self._folder(parts[:-1]) as chain:
                    removed = _remove(chain[-1], parts[-1])
            except FileNotFoundError:
                return 0
            self._prune(parts[:-1])
        return removed

    def probe(self) -> None:
        """See :class:`~daybreak_server.ports.blobs.Blobs`. Also tries a hard link, which uploads need."""
        folder, name = segments(probe_key())
        with self._translated(""):
            for tries_left in range(_WALK_TRIES, 0, -1):
                try:
                    with self._folder((folder,), create=True) as chain:
                        read = _probe(chain[-1], name)
                    break
                except FileNotFoundError:  # another probe just removed the empty folder
                    if tries_left == 1:
                        raise
            self._prune((folder,))
        if read != b"probe":
            raise BlobUnavailableError(f"{self.root} does not return what was written to it")

    @contextmanager
    def _part(self, parts: tuple[str, ...], key: str) -> Iterator[tuple[tuple[int, ...], str, int]]:
        """Create a temporary file in the folder of the key, and remove it at the end.

        Yields the descriptors of the folders on its path, its name, and its own descriptor.
        """
        part = f"~part-{secrets.token_hex(8)}"
        for _ in range(_WALK_TRIES):
            with self._folder(parts[:-1], create=True) as chain:
                if _exists(chain[-1], parts[-1]):
                    raise _taken(key)
                try:
                    writer = os.open(part, _NEW_FILE, 0o644, dir_fd=chain[-1])
                except FileNotFoundError:
                    continue  # another call just removed the empty folder
                try:
                    yield chain, part, writer
                finally:
                    os.close(writer)
                    with suppress(FileNotFoundError):
                        os.unlink(part, dir_fd=chain[-1])
                return
        raise BlobUnavailableError(f"other processes keep removing the folder of {key}; retry later")

    def _walk(self, parts: tuple[str, ...]) -> Iterator[BlobStat]:
        """The files below a folder, ordered by key (``a-b`` comes before ``a/b``)."""
        try:
            with self._folder(parts) as chain:
                folder = chain[-1]
                with os.scandir(folder) as entries:
                    names = [(e.name, e.is_dir(follow_symlinks=False)) for e in entries if not e.is_symlink()]
                stats = {n: _stat_in(folder, n, parts) for n, is_folder in names if not is_folder}
        except (FileNotFoundError, NotADirectoryError):
            return
        for name in sorted(f"{n}/" if is_folder else n for n, is_folder in names):
            if name.endswith("/"):
                yield from self._walk((*parts, name[:-1]))
            elif (stat := stats[name]) is not None:
                yield stat

    def _prune(self, parts: tuple[str, ...]) -> None:
        """Remove the empty folders on the path ``parts``, the deepest first."""
        for depth in range(len(parts), 0, -1):
            try:
                with self._folder(parts[: depth - 1]) as chain:
                    os.rmdir(parts[depth - 1], dir_fd=chain[-1])
            except OSError:
                return

    @contextmanager
    def _file(self, key: str) -> Iterator[tuple[int, int]]:
        """The descriptors of a file and its folder. :raises BlobNotFoundError: if the key names no plain file."""
        *parents, name = segments(key)
        try:
            with self._folder(tuple(parents)) as chain:
                file = os.open(
                    name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=chain[-1]
                )
                try:
                    if not modes.S_ISREG(os.fstat(file).st_mode):
                        raise BlobNotFoundError(f"there is no file {key}")
                    yield file, chain[-1]
                finally:
                    self._close(file)
        except (FileNotFoundError, NotADirectoryError) as exc:
            raise BlobNotFoundError(f"there is no file {key}") from exc

    @contextmanager
    def _folder(self, parts: tuple[str, ...], *, create: bool = False) -> Iterator[tuple[int, ...]]:
        """The descriptors of the folders from the root down to ``parts``."""
        for tries_left in range(_WALK_TRIES, 0, -1):
            chain = [self._open_root()]
            try:
                try:
                    for name in parts:
                        if create:
                            with suppress(FileExistsError):
                                os.mkdir(name, 0o755, dir_fd=chain[-1])
                        chain.append(os.open(name, _FOLDER, dir_fd=chain[-1]))
                except FileNotFoundError:
                    if not create or tries_left == 1:
                        raise
                    continue
                yield tuple(chain)
                return
            finally:
                for descriptor in chain:
                    self._close(descriptor)

    def _open_root(self) -> int:
        return os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)  # the root may be a link

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except BlobError:
            raise
        except OSError as exc:
            raise translate(exc, root=self.root, key=key) from exc

    @staticmethod
    def _close(descriptor: int) -> None:
        with suppress(OSError):
            os.close(descriptor)


class _Bounded(io.RawIOBase):
    """The next ``length`` bytes of a file."""

    def __init__(self, raw: io.RawIOBase, length: int) -> None:
        super().__init__()
        self._raw = raw
        self._remaining = length

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._raw.readinto(memoryview(buffer)[: self._remaining]) or 0
        self._remaining -= count
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()


def _taken(key: str) -> BlobExistsError:
    return BlobExistsError(f"{key} already exists, and files are never overwritten")


def _copy(reader: BinaryIO, writer: int) -> Iterator[int]:
    """Copy into a file and sync it. After each part, yields the number of bytes copied so far."""
    sent = 0
    while data := reader.read(PART_BYTES):
        _write_all(writer, data)
        sent += len(data)
        yield sent
    if not sent:
        yield 0
    os.fsync(writer)


def _publish(folder: int, part: str, name: str, *, key: str, content_type: str) -> None:
    """Give a complete file its name, by a hard link. A hard link is portable, and never replaces an existing file."""
    try:
        os.link(part, name, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError as exc:
        raise _taken(key) from exc
    except FileNotFoundError as exc:
        raise BlobUnavailableError(f"{key} was deleted while it was uploaded") from exc
    _keep_type(folder, name, content_type)


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _stat_in(folder: int, name: str, parts: tuple[str, ...]) -> BlobStat | None:
    """The key, size and type of a file; ``None`` if it is not a plain file, has no valid key, or is gone."""
    try:
        key = "/".join(segments("/".join((*parts, name))))
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if not modes.S_ISREG(status.st_mode):
            return None
        return BlobStat(key=key, size_bytes=status.st_size, content_type=type_by_name(name))
    except (BlobKeyError, FileNotFoundError):
        return None


def _type_of(folder: int, name: str) -> str:
    try:
        sidecar = os.open(f"~type-{name}", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except OSError:
        return type_by_name(name)
    with os.fdopen(sidecar, "rb") as file:
        return file.read(1000).decode("ascii", "replace") or type_by_name(name)


def _keep_type(folder: int, name: str, content_type: str) -> None:
    """Store the content type of a new file. If that fails, remove the file."""
    with suppress(FileNotFoundError):
        os.unlink(f"~type-{name}", dir_fd=folder)
    if content_type == type_by_name(name):
        return
    try:
        _write(folder, f"~type-{name}", content_type.encode())
    except OSError:
        os.unlink(name, dir_fd=folder)
        raise


def _remove(folder: int, name: str) -> int:
    """Remove a file or a folder with its content, without following links. Returns how many files it removed. Files
    whose names begin with ``~`` are not counted."""
    try:
        if not modes.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            with suppress(FileNotFoundError):
                os.unlink(f"~type-{name}", dir_fd=folder)
            os.unlink(name, dir_fd=folder)
            return 0 if name.startswith("~") else 1
        inner = os.open(name, _FOLDER, dir_fd=folder)
    except FileNotFoundError:
        return 0
    try:
        removed = sum(_remove(inner, entry) for entry in os.listdir(inner))
    finally:
        os.close(inner)
    with suppress(OSError):  # a concurrent upload uses the folder again
        os.rmdir(name, dir_fd=folder)
    return removed


def _probe(folder: int, name: str) -> bytes:
    """Write, link and read a small file, and remove both names. Returns what was read."""
    try:
        _write(folder, name, b"probe")
        os.link(name, f"{name}-2", src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
        with os.fdopen(os.open(name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=folder), "rb") as file:
            return file.read()
    finally:
        for leftover in (name, f"{name}-2"):
            with suppress(FileNotFoundError):
                os.unlink(leftover, dir_fd=folder)


def _write(folder: int, name: str, data: bytes) -> None:
    """Create a small file and sync it."""
    file = os.open(name, _NEW_FILE, 0o644, dir_fd=folder)
    try:
        _write_all(file, data)
        os.fsync(file)
    finally:
        os.close(file)


def _write_all(file: int, data: bytes) -> None:
    remaining = memoryview(data)
    while remaining:
        remaining = remaining[os.write(file, remaining) :]
