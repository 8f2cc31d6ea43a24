"""One line of the log for each change of a task's state, written by the process that made the change.

A line is written at most once. It is missing if the process dies between the change and the line, or if the store's
answer is lost. The events of the task are the complete record.

A gateway accepts thousands of tasks a second, and logging a line with the standard library takes a tenth of the time of
a submit. So :func:`write_lines_with` lets ``observability/logging.py`` write these lines itself. That module can
write the lines about submits a moment later, many at once. By default, all lines are records of the logger
:data:`TASKS`.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Mapping

from daybreak_server.domain import log_context
from daybreak_server.domain.ids import TaskId
from daybreak_server.domain.task_changes import ChangeKind, TaskChange

TASKS = "daybreak.tasks"
"""The logger of these lines. Their messages contain no text from a workload, but their field ``error`` may."""
WriteLine = Callable[[bool, dict[str, object]], None]
"""Writes a line. Gets whether the line is a warning, and the line's fields, among them ``message``. Must not raise."""
WriteSubmit = Callable[[TaskId, str, str, str], object]
"""Writes the line about a submit. Gets the id of the task, its tenant, the id of its trace (empty if there is none),
and the id of the request. Must not raise."""

_log = logging.getLogger(TASKS)
_own_log = logging.getLogger(__name__)


def _write_record(is_warning: bool, line: dict[str, object]) -> None:
    message = line.pop("message")
    _log.log(logging.WARNING if is_warning else logging.INFO, message, extra=line)


_write: WriteLine = _write_record
_write_submit: WriteSubmit | None = None


def write_lines_with(write: WriteLine | None, *, submits: WriteSubmit | None = None) -> None:
    """From now on, write lines with ``write``. ``None``: make them records of :data:`TASKS`.

    :param submits: Writes the lines of :func:`log_submit`. ``None``: ``write`` writes these lines too.
    """
    global _write, _write_submit
    _write, _write_submit = write or _write_record, submits


def log_task(kind: ChangeKind, task: TaskId, **details: str | int | float | None) -> None:
    """Log a change of a task. Never raises: an exception is logged instead, once for each type of exception.

    :param details: Further fields. Their names are in ``log_lines.FIELDS``. Fields without a value are left out.
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
    """Log that a task has been stored. The line may be written a moment later. Never raises.

    ``trace_id``: empty if there is no trace.
    """
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
