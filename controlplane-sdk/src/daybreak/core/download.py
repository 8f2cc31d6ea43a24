"""Downloading an artifact: resumed where it broke, checked, and in place only when it is whole.

Where it goes is decided in :mod:`daybreak.core.targets`. A plain file gets its bytes in a part file beside it; a device
or a FIFO gets them from a temporary file, so that its reader sees nothing that is not checked.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from daybreak.core import operations
from daybreak.core.effects import STREAM_TIMEOUT_S, Close, Do, HttpRequest, Open, Operation, Read, Sleep
from daybreak.core.replies import refuse
from daybreak.core.retry import Retry, calling
from daybreak.core.targets import Target, target_of, write_into
from daybreak.errors import (
    DaybreakError,
    DownloadError,
    QuotaError,
    ServerError,
    TransportError,
    UnavailableError,
)
from daybreak.wire import Artifact, ErrorCode, Task

BLOCK_BYTES = 1 << 20


def artifact_of(task: Task, name: str) -> Artifact:
    """The task's artifact of that name. Raises ``DownloadError``."""
    for artifact in task.artifacts:
        if artifact.name == name:
            return artifact
    there = ", ".join(each.name for each in task.artifacts) or "none"
    raise DownloadError(f"{task.id} ({task.state.value}) has no artifact {name!r}; there: {there}")


def downloading(
    task: operations.TaskRef, name: str, path: str | os.PathLike[str] | None, *, retry: Retry
) -> Operation[Path]:
    """Bring the artifact to ``path``: a file, or a folder (one that exists, or a path that ends with ``/``).

    Absent: its own name here. Links are followed; a device or a FIFO is written into. The bytes go to a hidden
    ``.part`` file beside the target whose name holds the SHA-256, so that a later call goes on where this one broke,
    also in another process. Raises ``DownloadError`` when the artifact is not there yet, or when what came is not
    what was promised.
    """
    found = task if isinstance(task, Task) else (yield from calling(operations.get(task), retry))
    artifact = artifact_of(found, name)
    target: Target = yield Do(lambda: target_of(path, name))
    if target.file is None:
        with tempfile.TemporaryDirectory(prefix="daybreak-") as folder:
            whole = Path(folder) / "whole"
            yield from _bringing(found, artifact, whole, Path(folder) / "part", retry)
            yield Do(lambda: write_into(whole, target.path))
    else:
        yield from _bringing(found, artifact, target.file, target.part(artifact.sha256), retry)
    return target.path


def _bringing(task: Task, artifact: Artifact, file: Path, part: Path, retry: Retry) -> Operation[None]:
    """Bring the artifact to a plain file by way of its part file."""
    if (yield Do(lambda: _is_whole(file, artifact))):
        return
    yield Do(lambda: file.parent.mkdir(parents=True, exist_ok=True))
    for _ in range(2):
        resumed = yield from _fetching(task, artifact, part, retry)
        if (yield Do(lambda: _is_whole(part, artifact))):
            yield Do(lambda: os.replace(part, file))
            return
        yield Do(lambda: part.unlink(missing_ok=True))
        if not resumed:
            break
        # The bytes that were left here may have been the wrong ones: once more, from the start.
    raise DownloadError(f"{artifact.name} of {task.id} arrived with other bytes than its SHA-256 says")


def _fetching(task: Task, artifact: Artifact, part: Path, retry: Retry) -> Operation[bool]:
    """Bring the part file to its full size. Tells whether it began with bytes of an earlier call."""
    have: int = yield Do(lambda: _size(part, limit=artifact.size_bytes))
    resumed = have > 0
    failures = 0
    while not (have == artifact.size_bytes and part.exists()):
        lost: DaybreakError = TransportError(f"{artifact.name} ended early")
        start = have
        try:
            head = yield Open(_request(task, artifact.name, start))
            if head.status == 416:
                yield Do(lambda: part.unlink(missing_ok=True))
            else:
                refuse(head)
                start = start if head.status == 206 else 0
                yield from _copying(artifact, part, start)
        except ServerError as error:
            # Of the store behind a redirect: S3 documents 500 InternalError as one to repeat. Ours is a bug: it stays.
            if error.code == ErrorCode.INTERNAL:
                raise
            lost = TransportError(str(error))
        except (TransportError, QuotaError, UnavailableError) as error:
            lost = error
        yield Close()
        have = yield Do(lambda: _size(part, limit=artifact.size_bytes))
        if have == artifact.size_bytes:
            continue
        failures = 1 if have > start else failures + 1
        if failures >= retry.attempts or not retry.patient(lost):
            raise lost
        yield Sleep(retry.delay(failures, lost))
    return resumed


def _copying(artifact: Artifact, part: Path, offset: int) -> Operation[None]:
    """Write the open answer to the file from ``offset`` on; what came before a break is kept."""
    written = offset
    waiting = bytearray()

    def flush() -> None:
        try:
            with part.open("r+b" if part.exists() else "w+b") as file:
                file.seek(written)
                file.write(waiting)
                file.truncate()
        except OSError as exc:
            exc.filename = exc.filename or os.fspath(part)  # a full disk does not say which
            raise

    try:
        while (chunk := (yield Read())) is not None:
            waiting += chunk
            if written + len(waiting) > artifact.size_bytes:
                raise DownloadError(
                    f"{artifact.name} is larger than the {artifact.size_bytes} bytes that it should have"
                )
            if len(waiting) >= BLOCK_BYTES:
                yield Do(flush)
                written += len(waiting)
                waiting.clear()
    except TransportError:
        yield Do(flush)
        raise
    yield Do(flush)


def _request(task: Task, name: str, have: int) -> HttpRequest:
    # Compressed bytes have offsets of their own; ranges only fit the file as it is.
    headers = {"Accept-Encoding": "identity", "Accept": "*/*"}
    if have:
        headers["Range"] = f"bytes={have}-"
    return HttpRequest(
        method="GET",
        path=operations.task_path(task, "artifacts", name),
        headers=headers,
        read_timeout_s=STREAM_TIMEOUT_S,
        follow_redirects=True,
    )


def _size(part: Path, *, limit: int) -> int:
    """Bytes of the part file; one that is too large holds something else, and is dropped."""
    try:
        size = part.stat().st_size
    except FileNotFoundError:
        return 0
    if size > limit:
        part.unlink(missing_ok=True)
        return 0
    return size


def _is_whole(path: Path, artifact: Artifact) -> bool:
    try:
        if path.stat().st_size != artifact.size_bytes:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == artifact.sha256
    except FileNotFoundError:
        return False
