"""Download an artifact. A download resumes after a failure, and the file appears only when it is complete and correct.

The bytes go to a hidden part file beside the target. The name of the part file contains the artifact's SHA-256, so any
later call for the same target, in this process or another, finds the part file and continues with a ``Range`` request.
When the part file is complete and its SHA-256 is right, it is renamed to the target. The bytes of an earlier call may
be wrong. So if the SHA-256 of a resumed file is wrong, the artifact is downloaded once more from the start.

A rename must not replace a device or a FIFO. Such a target receives the bytes from a temporary file after they have
been checked. :mod:`daybreak.core.targets` decides where the bytes go.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from daybreak.core import routes
from daybreak.core.effects import (
    STREAM_TIMEOUT_S,
    Close,
    HttpRequest,
    Open,
    Operation,
    Read,
    RunBlocking,
    Sleep,
)
from daybreak.core.replies import raise_for_status
from daybreak.core.retry import Retry, request_with_retries
from daybreak.core.targets import Target, target_of, write_into
from daybreak.errors import (
    ArtifactNotFoundError,
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
    """The task's artifact with this name. Raises ``ArtifactNotFoundError`` if there is none."""
    for artifact in task.artifacts:
        if artifact.name == name:
            return artifact
    names = ", ".join(artifact.name for artifact in task.artifacts) or "none"
    raise ArtifactNotFoundError(
        f"{task.id} ({task.state.value}) has no artifact {name!r}; its artifacts: {names}"
    )


def download(
    task: routes.TaskRef, name: str, path: str | os.PathLike[str] | None, *, retry: Retry
) -> Operation[Path]:
    """Download the artifact to ``path``: a file, or a folder (an existing one, or a path that ends with ``/``).

    Without ``path``, the file is created in the working directory, under the artifact's name. Symbolic links are
    followed. Raises ``ArtifactNotFoundError`` if the artifact does not exist, ``DownloadError`` if too many bytes
    arrived or their SHA-256 is wrong, and ``TransportError`` if too few arrived.
    """
    current = task if isinstance(task, Task) else (yield from request_with_retries(routes.get(task), retry))
    artifact = artifact_of(current, name)
    target: Target = yield RunBlocking(lambda: target_of(path, name))
    if target.file is None:
        with tempfile.TemporaryDirectory(prefix="daybreak-") as folder:
            complete = Path(folder) / "complete"
            yield from _download_file(current, artifact, complete, Path(folder) / "part", retry)
            yield RunBlocking(lambda: write_into(complete, target.path))
    else:
        yield from _download_file(current, artifact, target.file, target.part(artifact.sha256), retry)
    return target.path


def _download_file(task: Task, artifact: Artifact, file: Path, part: Path, retry: Retry) -> Operation[None]:
    """Download the artifact to its part file, check it, and rename it to ``file``."""
    if (yield RunBlocking(lambda: _is_complete(file, artifact))):
        return
    yield RunBlocking(lambda: file.parent.mkdir(parents=True, exist_ok=True))
    for _ in range(2):
        resumed = yield from _complete_part(task, artifact, part, retry)
        if (yield RunBlocking(lambda: _is_complete(part, artifact))):
            yield RunBlocking(lambda: os.replace(part, file))
            return
        yield RunBlocking(lambda: part.unlink(missing_ok=True))
        if not resumed:
            break
        # The bytes of the earlier call may have been the wrong ones, so download the artifact from the start.
    raise DownloadError(
        f"{artifact.name} of {task.id} arrived damaged: its SHA-256 does not match. Retry the download."
    )


def _complete_part(task: Task, artifact: Artifact, part: Path, retry: Retry) -> Operation[bool]:
    """Download until the part file has its full size. Returns whether an earlier call had begun the file.

    Each attempt asks for the bytes that are still missing, and the count of failures starts over when bytes arrive.
    """
    size: int = yield RunBlocking(lambda: _size(part, limit=artifact.size_bytes))
    resumed = size > 0
    failures = 0
    while not (size == artifact.size_bytes and part.exists()):
        failure: DaybreakError = TransportError(f"the download of {artifact.name} ended early")
        start = size
        try:
            head = yield Open(_request(task, artifact.name, start))
            if head.status == 416:
                yield RunBlocking(lambda: part.unlink(missing_ok=True))
            else:
                raise_for_status(head)
                start = start if head.status == 206 else 0
                yield from _write_body(artifact, part, start)
        except ServerError as error:
            # A redirect may lead to S3, which documents its 500 InternalError as temporary. A 500 of Daybreak is a bug.
            if error.code == ErrorCode.INTERNAL:
                raise
            failure = TransportError(str(error))
        except (TransportError, QuotaError, UnavailableError) as error:
            failure = error
        yield Close()
        size = yield RunBlocking(lambda: _size(part, limit=artifact.size_bytes))
        if size == artifact.size_bytes:
            continue
        failures = 1 if size > start else failures + 1
        if failures >= retry.attempts or not retry.should_retry(failure):
            raise failure
        yield Sleep(retry.delay(failures, failure))
    return resumed


def _write_body(artifact: Artifact, part: Path, offset: int) -> Operation[None]:
    """Write the response to the part file, from ``offset`` on. If the connection breaks, received bytes are kept."""
    written = offset
    buffer = bytearray()

    def flush() -> None:
        try:
            with part.open("r+b" if part.exists() else "w+b") as file:
                file.seek(written)
                file.write(buffer)
                file.truncate()
        except OSError as exc:
            exc.filename = exc.filename or os.fspath(part)  # a full disk's OSError has no filename
            raise

    try:
        while (chunk := (yield Read())) is not None:
            buffer += chunk
            if written + len(buffer) > artifact.size_bytes:
                raise DownloadError(
                    f"{artifact.name} arrived with more than its {artifact.size_bytes} bytes. Retry the download."
                )
            if len(buffer) >= BLOCK_BYTES:
                yield RunBlocking(flush)
                written += len(buffer)
                buffer.clear()
    except TransportError:
        yield RunBlocking(flush)
        raise
    yield RunBlocking(flush)


def _request(task: Task, name: str, offset: int) -> HttpRequest:
    # Offsets in a compressed response would not be offsets in the file, so the response must not be compressed.
    headers = {"Accept-Encoding": "identity", "Accept": "*/*"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    return HttpRequest(
        method="GET",
        path=routes.task_path(task, "artifacts", name),
        headers=headers,
        read_timeout_s=STREAM_TIMEOUT_S,
        follow_redirects=True,
    )


def _size(part: Path, *, limit: int) -> int:
    """The size of the part file in bytes. A file larger than ``limit`` is wrong and is removed."""
    try:
        size = part.stat().st_size
    except FileNotFoundError:
        return 0
    if size > limit:
        part.unlink(missing_ok=True)
        return 0
    return size


def _is_complete(path: Path, artifact: Artifact) -> bool:
    try:
        if path.stat().st_size != artifact.size_bytes:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == artifact.sha256
    except FileNotFoundError:
        return False
