"""A folder of this node that caches models from S3. Each model is downloaded once, completely or not at all.

The name of a model's folder is made from the names, sizes and tags of its files. So each version has its own folder,
and a folder that exists needs no check: while a model is downloaded, its folder is called ``<name>.partial``, and the
last step renames it. The processes that share the cache share a lock file for each model: one process downloads the
model, and the others wait.

Files are downloaded in ranges, in several threads. ``<name>.ranges`` lists the ranges whose bytes are on the disk, so a
download that was killed continues where it stopped.

The cache never removes a model, so it is as large as all models that the node has served.
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
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from daybreak_server.adapters.blobs.model_source import ModelFile
from daybreak_server.ports.blobs import BlobRefusedError, BlobUnavailableError

_log = logging.getLogger(__name__)

RANGE_BYTES: Final = 32 << 20
WORKERS: Final = 8
"""How many ranges are downloaded in parallel. Their chunks (1 MiB each) and the client's buffers take some tens of MiB
of memory."""
TRIES: Final = 5
_LOCK_POLL_S: Final = 0.2
_REPORT_S: Final = 0.5

OnProgress = Callable[[int, int], None]
"""Called with the downloaded and total bytes at least twice a second while :meth:`ModelCache.get` downloads a model or
waits for another process that downloads it. An exception from it ends the download."""


class ModelSource(Protocol):
    """The source of a model: see :class:`~daybreak_server.adapters.blobs.model_source.S3Model`."""

    url: str

    def files(self) -> tuple[ModelFile, ...]:
        """All files, by name."""

    def read(self, file: ModelFile, start: int, length: int) -> Iterator[bytes]:
        """A range of a file, in chunks."""


@dataclass(frozen=True, slots=True)
class Range:
    """A part of a file that one request reads."""

    file: ModelFile
    start: int
    length: int


class ModelCache:
    """The models of this node. Several processes may use it at once."""

    def __init__(self, folder: Path, *, range_bytes: int = RANGE_BYTES, workers: int = WORKERS) -> None:
        self._folder = folder
        self._range_bytes = range_bytes
        self._workers = workers

    def get(self, model: ModelSource, *, on_progress: OnProgress) -> Path:
        """The folder with the model, which is downloaded if it is not cached.

        :raises BlobError: when the model does not exist, when the store refuses the request or cannot be reached, or
            when the model does not fit on the disk.
        """
        files = model.files()
        total = sum(file.size_bytes for file in files)
        name = _name(files)
        complete = self._folder / name
        if complete.is_dir():
            return complete
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._locked(name, lambda: on_progress(min(self._size(name), total), total)):
                if not complete.is_dir():
                    ranges_done = _RangeLog(self._folder / f"{name}.ranges", folder=self._partial(name))
                    self._fetch(model, files, self._partial(name), ranges_done, on_progress)
                    os.rename(self._partial(name), complete)
                    _sync(self._folder)
                    ranges_done.remove()
        except OSError as exc:
            raise BlobRefusedError(f"model {model.url} cannot be stored in {self._folder}: {exc}") from exc
        on_progress(total, total)
        return complete

    def _partial(self, name: str) -> Path:
        return self._folder / f"{name}.partial"

    def _size(self, name: str) -> int:
        """How many bytes of a model are on the disk, while some process downloads it.

        That process may rename the folder at any moment, when the model is complete.
        """
        size = 0
        for folder, _, files in os.walk(self._partial(name)):
            for file in files:
                with suppress(FileNotFoundError):
                    size += os.stat(os.path.join(folder, file)).st_blocks * 512
        return size

    @contextmanager
    def _locked(self, name: str, waiting: Callable[[], None]) -> Iterator[None]:
        """Hold the node's lock for this model. The kernel releases the lock of a process that ends."""
        with (self._folder / f"{name}.lock").open("ab") as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    waiting()
                    time.sleep(_LOCK_POLL_S)
            yield

    def _fetch(
        self,
        model: ModelSource,
        files: Sequence[ModelFile],
        folder: Path,
        ranges_done: _RangeLog,
        on_progress: OnProgress,
    ) -> None:
        total = sum(file.size_bytes for file in files)
        missing = [part for file in files for part in self._ranges(file) if part not in ranges_done]
        missing_bytes = sum(part.length for part in missing)
        free = shutil.disk_usage(self._folder).free
        if free < missing_bytes:
            raise BlobRefusedError(
                f"model {model.url} does not fit in {self._folder}: {missing_bytes / 1e9:.1f} GB are needed and "
                f"{free / 1e9:.1f} GB are free; give the node a larger volume, or set DAYBREAK_MODEL_CACHE to "
                "another folder"
            )
        _log.info("downloading %s: %.3f of %.3f GB are missing", model.url, missing_bytes / 1e9, total / 1e9)
        with ExitStack() as stack:
            writers = {}
            for file in files:
                writers[file.name] = _RangeWriter(folder / file.name, file.size_bytes)
                stack.callback(writers[file.name].close)
            work = _Download(model, writers, ranges_done)
            self._read_all(work, missing, lambda: on_progress(total - missing_bytes + work.bytes, total))
            for writer in writers.values():
                writer.sync()

    def _ranges(self, file: ModelFile) -> Iterator[Range]:
        for start in range(0, file.size_bytes, self._range_bytes):
            yield Range(file, start, min(self._range_bytes, file.size_bytes - start))

    def _read_all(self, work: _Download, missing: Sequence[Range], on_progress: Callable[[], None]) -> None:
        """Read the ranges in threads, and report progress from the calling thread. The first failure ends all reads."""
        with ThreadPoolExecutor(self._workers, thread_name_prefix="model") as pool:
            reads = [pool.submit(work.read, part) for part in missing]
            try:
                while not all(read.done() for read in reads):
                    on_progress()
                    ended = wait(reads, timeout=_REPORT_S, return_when=FIRST_EXCEPTION).done
                    for read in ended:
                        read.result()
            finally:
                work.stopped = True
                pool.shutdown(cancel_futures=True)


class _Download:
    """The state that the reading threads share."""

    def __init__(
        self, model: ModelSource, writers: Mapping[str, _RangeWriter], ranges_done: _RangeLog
    ) -> None:
        self._model = model
        self._writers = writers
        self._ranges_done = ranges_done
        self._lock = threading.Lock()
        self.bytes = 0
        """Bytes received so far."""
        self.stopped = False
        """Whether the threads must stop, because nothing waits for them any more."""

    def read(self, part: Range) -> None:
        """Download a range and write it. Try again if the store cannot be reached or the range is cut off."""
        for tries in range(1, TRIES + 1):
            received = 0
            try:
                for chunk in self._model.read(part.file, part.start, part.length):
                    if self.stopped:
                        return
                    self._writers[part.file.name].write(chunk, part.start + received)
                    received += len(chunk)
                    self._count(len(chunk))
                self._writers[part.file.name].sync()  # the bytes must be durable before the log says so
                self._ranges_done.add(part)
                return
            except BlobUnavailableError as exc:
                self._count(-received)
                if tries == TRIES or self.stopped:
                    raise
                _log.warning("downloading %s failed, retrying: %s", part.file.name, exc)
                time.sleep(0.2 * 2**tries)

    def _count(self, more: int) -> None:
        with self._lock:
            self.bytes += more


class _RangeWriter:
    """A file of the model, which threads write range by range."""

    def __init__(self, path: Path, size: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        os.truncate(self._fd, size)

    def write(self, chunk: bytes, position: int) -> None:
        while chunk:
            written = os.pwrite(self._fd, chunk, position)
            chunk, position = chunk[written:], position + written

    def sync(self) -> None:
        os.fsync(self._fd)

    def close(self) -> None:
        os.close(self._fd)


class _RangeLog:
    """The log of the ranges that are on the disk: one line for each, written after its bytes."""

    def __init__(self, path: Path, *, folder: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        if not folder.exists():  # someone removed the folder, so the log is worthless
            self.remove()
        lines = path.read_text().splitlines(keepends=True) if path.exists() else []
        self._done = {line for line in lines if line.endswith("\n")}

    def __contains__(self, part: Range) -> bool:
        return _line(part) in self._done

    def add(self, part: Range) -> None:
        with self._lock, self._path.open("a") as file:
            file.write(_line(part))

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)


def _line(part: Range) -> str:
    return json.dumps([part.file.name, part.start, part.length]) + "\n"


def _name(files: Sequence[ModelFile]) -> str:
    """The name of the folder for these files."""
    contents = json.dumps([[file.name, file.size_bytes, file.tag] for file in files])
    return hashlib.sha256(contents.encode()).hexdigest()[:32]


def _sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
