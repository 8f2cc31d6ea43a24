"""Computes a result for each line of a task's file.

:class:`BulkRun` has the method ``run`` of a workload of kind ``jobs``.

The phases are ``input`` (copying the file), ``resume`` (fetching the parts of the output that earlier attempts have
stored) and ``lines``. The step number is the number of the last line whose result is written. Each step of the phase
``lines`` has a snapshot: the ledger of the output. Before the snapshot is taken, the results written so far are stored
as a new part. If storing them takes longer than ``store_s``, the ledger ends with the last part that is stored.
Deadlines, cancelling, releases and strikes work as for every task, because the loop of groups that run jobs also drives
this ``run``.

The output has one line for each line of the file, in order: ``{"line": 17, …the result}``, or
``{"line": 17, "error": {"code": …, "message": …}}``. If the line of the file was an object with an ``"id"``, the
line of the output has this ``"id"`` too. The ``"id"`` is missing in three errors: in ``line_too_long`` and
``invalid_json``, because the line was not parsed, and in ``invalid_result``, because the ``"id"`` itself may be the
cause of the error.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from daybreak_server.engines.common.artifacts import BLOB_STALL_S
from daybreak_server.engines.common.heartbeat import Heartbeat
from daybreak_server.engines.serving.bulk.jsonl import Line, read_lines
from daybreak_server.engines.serving.bulk.ledger import Ledger, fingerprint_of, resumed
from daybreak_server.engines.serving.bulk.metrics import BulkMetrics
from daybreak_server.engines.serving.bulk.output import Output, PartMismatchError
from daybreak_server.engines.serving.bulk.source import Copy, FileLimits, Places, copy, located
from daybreak_server.engines.serving.bulk.windows import Result, Window, Windows
from daybreak_server.ports.blobs import BlobError, Blobs
from daybreak_server.workloads.base import Context, Group, PermanentError, RetryableError, Step, Task
from daybreak_server.workloads.bulk import BulkParams, BulkWorkload, LineError

OUTPUT = "output.jsonl"
CONTENT_TYPE = "application/jsonl"


class BulkRun:
    """Implements :class:`daybreak_server.workloads.base.Workload` with the method ``bulk`` of a serving workload.

    :param store_s: How long a snapshot may wait until the newest results are stored.
    """

    def __init__(
        self,
        workload: BulkWorkload[Any],
        *,
        blobs: Blobs,
        places: Places,
        limits: FileLimits,
        heartbeat: Heartbeat,
        store_s: float,
        metrics: BulkMetrics,
    ) -> None:
        self._workload = workload
        self._blobs = blobs
        self._places = places
        self._limits = limits
        self._heartbeat = heartbeat
        self._store_s = store_s
        self._metrics = metrics

    def load(self, group: Group) -> None:
        """Do nothing: the group has already loaded the workload."""

    def warm_up(self) -> None:
        """Do nothing."""

    def run(self, task: Task[BulkParams], ctx: Context) -> Iterator[Step]:
        """Compute a result for each line of the task's file."""
        file = Copy(ctx.workdir / "input.jsonl")
        blobs, key = located(task.params.file, self._places, lambda: self._blobs)
        with self._heartbeat.during("input", BLOB_STALL_S):
            for _ in copy(blobs, key, file, self._limits):
                yield Step(phase="input", fraction=0.0)
        models = ",".join(getattr(self._workload, "models", ()))
        version = str(getattr(self._workload, "bulk_version", ""))
        fingerprint = fingerprint_of(file.sha256, task.params.model_dump_json(), models, version)
        ledger = resumed(ctx.resume, fingerprint) if ctx.resume else None
        if ctx.resume and ledger is None:
            ctx.log(
                "The checkpoint is of another file, other parameters or another model: starting at line 1.",
                level="warning",
            )
        ledger = ledger or Ledger(fingerprint=fingerprint)
        prefix = f"{task.id}/checkpoints/{task.attempt}-"
        with contextlib.ExitStack() as stack:
            output = stack.enter_context(
                contextlib.closing(Output(ctx.workdir / OUTPUT, ledger, self._blobs, prefix=prefix))
            )
            if ledger.line:
                try:
                    with self._heartbeat.during("resume", BLOB_STALL_S):
                        for _ in output.restore():
                            yield _step("resume", ledger.line, file, ledger.offset)
                    ctx.resumed_from(ledger.line)
                except BlobError as exc:
                    raise RetryableError(
                        f"The results so far cannot be read: {exc}", code="artifact_store"
                    ) from exc
                except PartMismatchError as exc:
                    ctx.log(
                        f"The results so far cannot be used, so the task starts at line 1: {exc}",
                        level="warning",
                    )
                    ledger = Ledger(fingerprint=fingerprint)
                    output.close()
                    output = stack.enter_context(
                        contextlib.closing(
                            Output(ctx.workdir / OUTPUT, ledger, self._blobs, prefix=f"{prefix}again-")
                        )
                    )
            yield from self._lines(task.params, file, ledger, output)
            path = output.finish()
        if output.failed:
            ctx.log(
                f"{output.failed} of {file.lines} lines have an error in place of a result.", level="warning"
            )
        ctx.artifact(path, name=OUTPUT, content_type=CONTENT_TYPE)

    def _lines(self, params: BulkParams, file: Copy, ledger: Ledger, output: Output) -> Iterator[Step]:
        snapshot = self._snapshot_of(output)
        offset = ledger.offset
        with (
            file.path.open("rb") as source,
            contextlib.closing(
                Windows(lambda values, cancelled: self._workload.bulk(params, values, cancelled=cancelled))
            ) as windows,
        ):
            lines = read_lines(
                source, max_line_bytes=self._limits.max_line_bytes, number=ledger.line, offset=offset
            )
            for window in windows.results(lines):
                if window is not None:
                    self._write(window, output, params)
                    offset = window.lines[-1].end
                yield _step("lines", output.line, file, offset, snapshot)

    def _snapshot_of(self, output: Output) -> Callable[[], bytes]:
        return lambda: output.store(timeout_s=self._store_s).dump()

    def _write(self, window: Window, output: Output, params: BulkParams) -> None:
        texts, failed, unfit = [], 0, 0
        for line, result in zip(window.lines, window.results, strict=True):
            text, error = _rendered(line, result)
            unfit += error is not None and error is not result
            if error is not None:
                if unfit == len(window.lines) > 1:
                    raise RetryableError(f"Each of {unfit} lines failed: {error}", code="all_lines_failed")
                if params.on_error == "fail":
                    raise PermanentError(f"Line {line.number}: {error}", code=error.code)
                failed += 1
            texts.append(text)
        last = window.lines[-1]
        output.append(texts, line=last.number, offset=last.end, failed=failed)
        self._metrics.lines(computed=len(texts) - failed, failed=failed)


def _rendered(line: Line, result: Result) -> tuple[bytes, LineError | None]:
    """The line of output, and its error if it has one. A result that is not JSON becomes an error."""
    try:
        return _shown(line, result), result if isinstance(result, LineError) else None
    except (TypeError, ValueError, RecursionError) as exc:
        error = LineError(f"The result is not JSON: {exc}"[:300], code="invalid_result")
        return _shown(replace(line, value=None), error), error  # without the `id`, which may be the reason


def _shown(line: Line, result: Result) -> bytes:
    shown: dict[str, Any] = {"line": line.number}
    if isinstance(line.value, dict) and "id" in line.value:
        shown["id"] = line.value["id"]
    if isinstance(result, LineError):
        shown["error"] = {"code": result.code, "message": str(result)}
    else:
        shown |= result
    return json.dumps(shown, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode(
        "utf-8", "replace"
    )


def _step(
    phase: str, line: int, file: Copy, offset: int, snapshot: Callable[[], bytes] | None = None
) -> Step:
    fraction = offset / file.size_bytes if file.size_bytes else 1.0
    return Step(phase=phase, fraction=fraction, step=line, steps=file.lines, snapshot=snapshot)
