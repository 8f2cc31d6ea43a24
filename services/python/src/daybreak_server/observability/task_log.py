"""One line of the log for each change of a task's state, written by the process that made the change.

A line is written at most once. It is missing if the process dies between the change and the line, or if the store's
answer is lost. The events of the task are the complete record.

A gateway accepts thousands of tasks a second, and a line by way of the standard library costs a tenth of a submit. So
:func:`write_lines_with` lets ``observability/logging.py`` write these lines directly, and those of submits a moment
later, many at once. By default they are ordinary records of the logger :data:`TASKS`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping

from daybreak_server.domain import log_context
from daybreak_server.domain.ids import TaskId
from daybreak_server.domain.task_changes import ChangeKind, TaskChange

TASKS = "daybreak.tasks"
"""The logger of these lines. Their messages contain no text from a workload; the field ``error`` may."""
WriteLine = Callable[[bool, dict[str, object]], None]
"""Gets whether the line is a warning, and its fields; ``message`` is one of them. Must not raise."""
WriteSubmit = Callable[[TaskId, str, str, str], object]
"""Gets the task, its tenant, the id of its trace (empty without one), and that of the request. Must not raise."""

_log = logging.getLogger(TASKS)
_own_log = logging.getLogger(__name__)


def _write_record(is_warning: bool, line: dict[str, object]) -> None:
    message = line.pop("message")
    _log.log(logging.WARNING if is_warning else logging.INFO, message, extra=line)


_write: WriteLine = _write_record
_write_submit: WriteSubmit | None = None


def write_lines_with(write: WriteLine | None, *, submits: WriteSubmit | None = None) -> None:
    """Write lines with ``write`` from now on; ``None``: as records of :data:`TASKS`.

    :param submits: Writes the lines of :func:`log_submit`; ``None``: ``write`` does.
    """
    global _write, _write_submit
    _write, _write_submit = write or _write_record, submits


def log_task(kind: ChangeKind, task: TaskId, **details: str | int | float | None) -> None:
    """Log a change of a task. Never raises: an error is logged, once for each type.

    :param details: Further fields, of those in ``log_lines.FIELDS``. Empty ones are left out.
    """
    try:
        _log_line(kind, task, details)
    except Exception as exc:
        _log_once(type(exc))  # type: ignore[arg-type]  # a class is hashable


@functools.cache
def _log_once(_kind: type[Exception]) -> None:
    _own_log.exception("the line about a change of a task cannot be written")


def _log_line(kind: ChangeKind, task: TaskId, details: Mapping[str, str | int | float | None]) -> None:
    is_warning = kind is ChangeKind.RETRYING or kind is ChangeKind.FAILED
    if not _log.isEnabledFor(logging.WARNING if is_warning else logging.INFO):
        return
    change = str(kind)
    line: dict[str, object] = {
        "message": f"task {task} {change}",
        "change": change,
        **log_context.about(task),
        "task": task,
        "pool": task.rpartition("_")[0],
    }
    for name, value in details.items():
        if value is not None and value != "":
            line[name] = value
    _write(is_warning, line)


def log_submit(task: TaskId, *, tenant: str, trace_id: str = "") -> None:
    """Log that a task is stored, perhaps a moment later. Never raises. ``trace_id``: empty if there is no trace."""
    try:
        fields = log_context.current()
        request_id = fields.get("request_id")
        if _write_submit is None or len(fields) != 1 or not isinstance(request_id, str):
            log_task(ChangeKind.SUBMITTED, task, tenant=tenant, trace_id=trace_id)
        else:
            _write_submit(task, tenant, trace_id, request_id)
    except Exception as exc:
        _log_once(type(exc))  # type: ignore[arg-type]  # a class is hashable


def log_change(change: TaskChange) -> None:
    """Log a change that the store reports. Never raises."""
    log_task(
        change.kind,
        change.task,
        attempt=change.attempt or None,
        group=change.group,
        tenant=change.tenant,
        trace_id=change.trace_id,
        reason=change.reason,
        error=change.message,
        strikes=change.strikes if change.kind is ChangeKind.RETRYING else None,
        delay_s=change.delay_s if change.kind is ChangeKind.RETRYING else None,
    )
