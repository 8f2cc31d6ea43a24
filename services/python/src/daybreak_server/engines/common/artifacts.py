"""The files of an attempt in the blob store: checkpoints while the work runs, artifacts once the work is done.

Artifacts are at ``<task>/<token>/<name>``. Each attempt has its own token, so two attempts never write the same key,
and an attempt that lost its task removes only its own files. If a retried upload finds its key taken, an earlier call
has stored the file, and the reply to that call was lost.

Checkpoints are at ``<task>/checkpoints/<token>-<step>.safetensors``. While the work continues, another thread stores
them, one at a time. The task's record points to its newest checkpoint. A fenced report moves this pointer, and only
then is the file of the previous checkpoint deleted. If this deletion fails, the gateways delete the file later: their
ticker removes leftover files.
"""

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
from daybreak_server.domain.log_context import inherited
from daybreak_server.domain.tasks import ArtifactRef, CheckpointRef, Lease
from daybreak_server.engines.common.outputs import checked_snapshot
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
"""The heartbeat's limit while files are stored or read. An S3 client takes minutes to give up on a server that accepts
connections and never answers. These minutes must not count as a stall of the work."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactDraft:
    """A file that the workload declared as an artifact."""

    path: Path
    name: str
    content_type: str


def attempt_prefix(lease: Lease) -> str:
    """Return the prefix of the keys of an attempt's artifacts."""
    return f"{lease.task}/{lease.token}/"


def upload_artifact(blobs: Blobs, lease: Lease, draft: ArtifactDraft) -> Iterator[ArtifactRef | None]:
    """Upload one artifact. Yields ``None`` after each part, and the finished artifact at the end.

    Each part is hashed while it is still in the page cache.

    :raises BlobError: if the artifact could not be stored.
    :raises RetryableError: if the file changed during the upload, because the stored bytes may then mix two versions.
    """
    key = attempt_prefix(lease) + key_segment(draft.name)
    for attempt in range(1, _TRIES + 1):
        try:
            digest, size, state = hashlib.sha256(), 0, _file_state(draft.path)
            with draft.path.open("rb") as source:
                for sent in _upload(blobs, key, draft):
                    digest.update(source.read(sent - size))
                    size = sent
                    yield None
                digest.update(source.read())  # the whole file, if an earlier try has stored it
            if _file_state(draft.path) != state:
                raise RetryableError(
                    f"{draft.name} was written to during its upload: close the file before `run` ends"
                )
            yield ArtifactRef(
                name=draft.name,
                key=key,
                content_type=draft.content_type,
                size_bytes=state[1],
                sha256=digest.hexdigest(),
            )
            return
        except BlobUnavailableError as exc:
            if attempt == _TRIES:
                raise
            _log.warning("the upload of %s failed; retrying: %s", key, exc)
            time.sleep(0.5 * attempt)
            yield None


def _file_state(path: Path) -> tuple[int, int, int]:
    """Return what changes when a file is written or replaced: its inode, size and modification time."""
    stat = path.stat()
    return stat.st_ino, stat.st_size, stat.st_mtime_ns


def _upload(blobs: Blobs, key: str, draft: ArtifactDraft) -> Iterator[int]:
    try:
        yield from blobs.upload(key, draft.path, content_type=draft.content_type)
    except BlobExistsError:
        # The key has this attempt's token, so an earlier try has stored the file, and its reply was lost.
        if blobs.stat(key).size_bytes != draft.path.stat().st_size:
            raise


def discard(blobs: Blobs, lease: Lease) -> None:
    """Remove an attempt's artifacts. If this fails, the gateways' ticker removes them later."""
    try:
        blobs.delete(attempt_prefix(lease))
    except BlobError as exc:
        _log.info("artifacts of %s could not be deleted; the gateways will delete them: %s", lease.task, exc)


def fetch(blobs: Blobs, checkpoint: CheckpointRef) -> bytes | None:
    """Return a checkpoint's bytes, or ``None`` if they cannot be read. After ``None``, the work starts at step 0."""
    for attempt in range(1, _TRIES + 1):
        try:
            with blobs.open(checkpoint.key) as file:
                return file.read()
        except BlobNotFoundError:
            _log.warning("checkpoint %s does not exist; starting at step 0", checkpoint.key)
            return None
        except BlobError as exc:
            _log.warning("checkpoint %s cannot be read (try %d): %s", checkpoint.key, attempt, exc)
            time.sleep(0.5 * attempt)
    return None


class Checkpoints:
    """Stores snapshots while the work continues, one at a time. One thread calls the methods; another one uploads."""

    def __init__(self, blobs: Blobs, lease: Lease, *, every_s: float, scratch: Path) -> None:
        self._blobs = blobs
        self._lease = lease
        self._every_s = every_s
        self._scratch = scratch
        self._last_at = time.monotonic()
        self._pool: ThreadPoolExecutor | None = None
        self._pending: Future[CheckpointRef | None] | None = None
        self._previous: CheckpointRef | None = None

    def due(self) -> bool:
        """Return whether a snapshot should be taken now."""
        return self._pending is None and time.monotonic() - self._last_at >= self._every_s

    def begin(self, snapshot: Callable[[], bytes], step: int) -> None:
        """Take a snapshot now, and store it in the background."""
        self._last_at = time.monotonic()
        try:
            data = checked_snapshot(snapshot())
        except BaseException:  # the workload's own code; the work continues without this checkpoint
            _log.exception("the snapshot of %s after step %d failed", self._lease.task, step)
            return
        self._pending = self._background().submit(inherited(self._store), data, step)

    @property
    def pending(self) -> bool:
        """Whether a snapshot is being stored."""
        return self._pending is not None

    def stored(self, *, until: float | None = None) -> CheckpointRef | None:
        """Return a checkpoint that has been stored since the last call, or ``None``.

        :param until: The monotonic time until which to wait for a snapshot that is being stored. Default: do not wait.
        """
        if self._pending is None:
            return None
        wait([self._pending], timeout=max(0.0, until - time.monotonic()) if until is not None else 0)
        if not self._pending.done():
            return None
        pending, self._pending = self._pending, None
        return pending.result()

    def reported(self, checkpoint: CheckpointRef) -> None:
        """Remember that the task's record points to this checkpoint now, and delete the previous checkpoint.

        When a task is released, its last two checkpoints may be of the same step. They then have the same key, so the
        file must stay.
        """
        previous, self._previous = self._previous, checkpoint
        if previous is not None and previous.key != checkpoint.key:
            self._background().submit(inherited(self._delete), previous.key)

    def close(self) -> None:
        """Wait for the background work to end."""
        if self._pool is not None:
            self._pool.shutdown(wait=True)

    def _background(self) -> ThreadPoolExecutor:
        """Return the thread pool. The first checkpoint creates it, because most short attempts store none."""
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
            _log.info("checkpoint %s could not be deleted; the gateways will delete it: %s", key, exc)
