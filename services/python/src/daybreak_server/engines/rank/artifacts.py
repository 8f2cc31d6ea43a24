"""What an attempt leaves in the blob store: checkpoints while it runs, artifacts when it has ended."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from daybreak_server.domain.artifact_names import key_segment
from daybreak_server.domain.tasks import ArtifactRef, CheckpointRef, Lease
from daybreak_server.engines.rank.outputs import checked_snapshot
from daybreak_server.ports.blobs import (
    BlobError,
    BlobExistsError,
    BlobNotFoundError,
    Blobs,
    BlobUnavailableError,
)
from daybreak_server.workloads.base import RetryableError

_log = logging.getLogger(__name__)
_TRIES = 3
BLOB_STALL_S = 600.0
"""An S3 that takes connections and never answers is given up by its client after some minutes: that is no stall."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactDraft:
    """A file that the workload wants to leave."""

    path: Path
    name: str
    content_type: str


def attempt_prefix(lease: Lease) -> str:
    """Below this an attempt's artifacts lie."""
    return f"{lease.task}/{lease.token}/"


def publish(blobs: Blobs, lease: Lease, draft: ArtifactDraft) -> Iterator[ArtifactRef | None]:
    """Upload one artifact. Yields ``None`` after each part, and the finished artifact at last.

    The hash is taken of each part while it is still in the page cache.
    :raises BlobError: when it could not be stored.
    :raises RetryableError: when it was still being written, so that what is stored may be none of its states.
    """
    key = attempt_prefix(lease) + key_segment(draft.name)
    for attempt in range(1, _TRIES + 1):
        try:
            digest, size, was = hashlib.sha256(), 0, _state(draft.path)
            with draft.path.open("rb") as source:
                for sent in _upload(blobs, key, draft):
                    digest.update(source.read(sent - size))
                    size = sent
                    yield None
                digest.update(source.read())  # all of it, where an earlier try has stored it
            if _state(draft.path) != was:
                raise RetryableError(
                    f"{draft.name} was written to while it was stored: close it before the work ends"
                )
            yield ArtifactRef(
                name=draft.name,
                key=key,
                content_type=draft.content_type,
                size_bytes=was[1],
                sha256=digest.hexdigest(),
            )
            return
        except BlobUnavailableError as exc:
            if attempt == _TRIES:
                raise
            _log.warning("upload of %s failed, trying again: %s", key, exc)
            time.sleep(0.5 * attempt)
            yield None


def _state(path: Path) -> tuple[int, int, int]:
    """What a write to a file changes: which it is, its size, and when it was written."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def _upload(blobs: Blobs, key: str, draft: ArtifactDraft) -> Iterator[int]:
    try:
        yield from blobs.upload(key, draft.path, content_type=draft.content_type)
    except BlobExistsError:
        # An earlier try was stored and its answer got lost: the key carries this attempt's token.
        if blobs.stat(key).size_bytes != draft.path.stat().st_size:
            raise


def discard(blobs: Blobs, lease: Lease) -> None:
    """Remove what an attempt has left. The sweeper comes after, so a failure only costs time."""
    try:
        blobs.delete(attempt_prefix(lease))
    except BlobError as exc:
        _log.info("files of %s stay for the sweeper: %s", lease.task, exc)


def fetch(blobs: Blobs, checkpoint: CheckpointRef) -> bytes | None:
    """A checkpoint's bytes, or ``None`` where they cannot be had: then the work starts at step 0."""
    for attempt in range(1, _TRIES + 1):
        try:
            with blobs.open(checkpoint.key) as file:
                return file.read()
        except BlobNotFoundError:
            _log.warning("checkpoint %s is gone; starting at step 0", checkpoint.key)
            return None
        except BlobError as exc:
            _log.warning("checkpoint %s cannot be read (try %d): %s", checkpoint.key, attempt, exc)
            time.sleep(0.5 * attempt)
    return None


class Checkpoints:
    """Stores snapshots beside the work, one at a time. Called by one thread; the upload runs on another."""

    def __init__(self, blobs: Blobs, lease: Lease, *, every_s: float, scratch: Path) -> None:
        self._blobs = blobs
        self._lease = lease
        self._every_s = every_s
        self._scratch = scratch
        self._last = time.monotonic()
        self._pool: ThreadPoolExecutor | None = None
        self._pending: Future[CheckpointRef | None] | None = None
        self._previous: CheckpointRef | None = None

    def due(self) -> bool:
        """Whether a snapshot should be taken now."""
        return self._pending is None and time.monotonic() - self._last >= self._every_s

    def begin(self, snapshot: Callable[[], bytes], step: int) -> None:
        """Take a snapshot now and store it in the background."""
        self._last = time.monotonic()
        try:
            data = checked_snapshot(snapshot())
        except BaseException:  # the work's own code, and it goes on without this checkpoint
            _log.exception("the snapshot of %s after step %d failed", self._lease.task, step)
            return
        self._pending = self._background().submit(self._store, data, step)

    @property
    def pending(self) -> bool:
        """Whether one is being stored."""
        return self._pending is not None

    def stored(self, *, until: float | None = None) -> CheckpointRef | None:
        """A checkpoint that has been stored and not yet been reported, or ``None``. With ``until``, in monotonic
        seconds, one that is being stored is waited for."""
        if self._pending is None:
            return None
        wait([self._pending], timeout=max(0.0, until - time.monotonic()) if until is not None else 0)
        if not self._pending.done():
            return None
        pending, self._pending = self._pending, None
        return pending.result()

    def reported(self, checkpoint: CheckpointRef) -> None:
        """The record points at it now, so the one before can go."""
        previous, self._previous = self._previous, checkpoint
        if previous is not None:
            self._background().submit(self._delete, previous.key)

    def close(self) -> None:
        """Let the background work end."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)

    def _background(self) -> ThreadPoolExecutor:
        """Made at the first checkpoint: most short attempts have none."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        return self._pool

    def _store(self, data: bytes, step: int) -> CheckpointRef | None:
        key = f"{self._lease.task}/checkpoints/{self._lease.token}-{step}.safetensors"
        try:
            with tempfile.NamedTemporaryFile(dir=self._scratch, suffix=".safetensors") as file:
                file.write(data)
                file.flush()
                for _ in self._blobs.upload(key, Path(file.name), content_type="application/octet-stream"):
                    pass
        except BlobExistsError:
            pass
        except (BlobError, OSError) as exc:
            _log.warning("the checkpoint after step %d could not be stored: %s", step, exc)
            return None
        return CheckpointRef(key=key, step=step)

    def _delete(self, key: str) -> None:
        try:
            self._blobs.delete(key)
        except BlobError as exc:
            _log.info("checkpoint %s stays for the sweeper: %s", key, exc)
