"""A folder of this node in which models from elsewhere are kept: fetched once, whole or not at all.

A model's folder is named by what its files are (names, sizes, tags), so another version is another folder, and what
is there needs no check. While it is fetched it has another name; the last step is a rename. Ranks of one node take
turns by a lock on a file: one fetches, the others wait. What a killed one has left is gone on with: each range that
is on the disk is noted in a file beside the folder.

Nothing is ever removed here: a node's cache is as large as the models that it has served.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from daybreak_server.adapters.blobs.model_source import ModelFile
from daybreak_server.ports.blobs import BlobRefusedError, BlobUnavailableError

_log = logging.getLogger(__name__)

RANGE_BYTES: Final = 32 << 20
WORKERS: Final = 8
"""Ranges at once: with a piece of 1 MiB each, and what the client buffers, some tens of MiB of memory."""
TRIES: Final = 5
_LOOK_S: Final = 0.2
_TELL_S: Final = 0.5

Told = Callable[[int, int], None]
"""Called with the bytes that are there and those that will be, at least twice a second while it works or waits.
What it raises ends the fetch."""


class Model(Protocol):
    """Where a model comes from: see :class:`~daybreak_server.adapters.blobs.model_source.S3Model`."""

    url: str

    def files(self) -> tuple[ModelFile, ...]:
        """All files, by name."""

    def read(self, file: ModelFile, start: int, length: int) -> Iterator[bytes]:
        """A range of one."""


@dataclass(frozen=True, slots=True)
class Range:
    """A part of a file that is read at once."""

    file: ModelFile
    start: int
    length: int


class ModelCache:
    """The models of this node. Safe for many processes at once."""

    def __init__(self, folder: Path, *, range_bytes: int = RANGE_BYTES, workers: int = WORKERS) -> None:
        self._folder = folder
        self._range_bytes = range_bytes
        self._workers = workers

    def get(self, model: Model, *, told: Told) -> Path:
        """The folder that holds the model, fetched if it is not here.

        :raises BlobError: when it is not there, is refused, cannot be reached, or has no room here.
        """
        files = model.files()
        total = sum(file.size_bytes for file in files)
        name = _name(files)
        there = self._folder / name
        if there.is_dir():
            return there
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._alone(name, lambda: told(min(self._size(name), total), total)):
                if not there.is_dir():
                    notes = _Progress(self._folder / f"{name}.ranges", of=self._partial(name))
                    self._fetch(model, files, self._partial(name), notes, told)
                    os.rename(self._partial(name), there)
                    _sync(self._folder)
                    notes.remove()
        except OSError as exc:
            raise BlobRefusedError(f"model {model.url} cannot be kept in {self._folder}: {exc}") from exc
        told(total, total)
        return there

    def _partial(self, name: str) -> Path:
        return self._folder / f"{name}.partial"

    def _size(self, name: str) -> int:
        """Bytes on the disk of what is being fetched by somebody."""
        found = self._partial(name).rglob("*")
        return sum(path.stat().st_blocks * 512 for path in found if path.is_file())

    @contextmanager
    def _alone(self, name: str, waiting: Callable[[], None]) -> Iterator[None]:
        """Be the only one of this node who fetches it. The lock goes with its process."""
        with (self._folder / f"{name}.lock").open("ab") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    waiting()
                    time.sleep(_LOOK_S)
            yield

    def _fetch(
        self, model: Model, files: Sequence[ModelFile], folder: Path, notes: _Progress, told: Told
    ) -> None:
        total = sum(file.size_bytes for file in files)
        missing = [one for file in files for one in self._ranges(file) if one not in notes]
        left = sum(one.length for one in missing)
        free = shutil.disk_usage(self._folder).free
        if free < left:
            raise BlobRefusedError(
                f"model {model.url} has no room in {self._folder}: {left / 1e9:.1f} GB are wanted and "
                f"{free / 1e9:.1f} GB are free; give the node a larger volume, or name another folder "
                "(DAYBREAK_MODEL_CACHE)"
            )
        _log.info("fetching %s: %.3f of %.3f GB are missing", model.url, left / 1e9, total / 1e9)
        with ExitStack() as stack:
            targets = {}
            for file in files:
                targets[file.name] = _Destination(folder / file.name, file.size_bytes)
                stack.callback(targets[file.name].close)
            work = _Download(model, targets, notes)
            self._read_all(work, missing, lambda: told(total - left + work.bytes, total))
            for target in targets.values():
                target.sync()

    def _ranges(self, file: ModelFile) -> Iterator[Range]:
        for start in range(0, file.size_bytes, self._range_bytes):
            yield Range(file, start, min(self._range_bytes, file.size_bytes - start))

    def _read_all(self, work: _Download, missing: Sequence[Range], told: Callable[[], None]) -> None:
        """Read in threads, and tell from this one. The first failure ends it."""
        with ThreadPoolExecutor(self._workers, thread_name_prefix="model") as pool:
            reading = [pool.submit(work.read, one) for one in missing]
            try:
                while not all(one.done() for one in reading):
                    told()
                    ended = wait(reading, timeout=_TELL_S, return_when=FIRST_EXCEPTION).done
                    for one in ended:
                        one.result()
            finally:
                work.over = True
                pool.shutdown(cancel_futures=True)


class _Download:
    """What the reading threads share."""

    def __init__(self, model: Model, targets: Mapping[str, _Destination], notes: _Progress) -> None:
        self._model = model
        self._targets = targets
        self._notes = notes
        self._lock = threading.Lock()
        self.bytes = 0
        """That have come so far."""
        self.over = False
        """Whether nobody waits for them any more."""

    def read(self, one: Range) -> None:
        """Fetch a range and put it in its place; after a broken connection once more."""
        for tries in range(1, TRIES + 1):
            got = 0
            try:
                for piece in self._model.read(one.file, one.start, one.length):
                    if self.over:
                        return
                    self._targets[one.file.name].write(piece, one.start + got)
                    got += len(piece)
                    self._count(len(piece))
                self._targets[one.file.name].sync()  # first the bytes, then the note, also after a power cut
                self._notes.add(one)
                return
            except BlobUnavailableError as exc:
                self._count(-got)
                if tries == TRIES or self.over:
                    raise
                _log.warning("%s, once more: %s", one.file.name, exc)
                time.sleep(0.2 * 2**tries)

    def _count(self, more: int) -> None:
        with self._lock:
            self.bytes += more


class _Destination:
    """A file that is being written, range by range."""

    def __init__(self, path: Path, size: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.truncate(self._fd, size)

    def write(self, piece: bytes, at: int) -> None:
        while piece:
            written = os.pwrite(self._fd, piece, at)
            piece, at = piece[written:], at + written

    def sync(self) -> None:
        os.fsync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


class _Progress:
    """Which ranges are on the disk: a line each, written whole when its bytes are there."""

    def __init__(self, path: Path, *, of: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        if not of.exists():  # somebody has cleaned up
            self.remove()
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        self._there = {line for line in lines if line.endswith("\n")}

    def __contains__(self, one: Range) -> bool:
        return _line(one) in self._there

    def add(self, one: Range) -> None:
        with self._lock, self._path.open("a") as file:
            file.write(_line(one))

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def _line(one: Range) -> str:
    return json.dumps([one.file.name, one.start, one.length]) + "\n"


def _name(files: Sequence[ModelFile]) -> str:
    """A name for these contents."""
    told = json.dumps([[file.name, file.size_bytes, file.tag] for file in files])
    return hashlib.sha256(told.encode()).hexdigest()[:32]


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
