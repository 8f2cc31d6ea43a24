"""One line of the log for each change of a task's state, written by the process that made the change.

A line is written at most once. It is missing if the process dies between the change and the line, or if the store's
answer is lost. The events of the task are the complete record.

A gateway accepts thousands of tasks a second, and a line by way of the standard library costs a tenth of a submit. So
:func:`write_lines_with` lets ``observability/logging.py`` write these lines directly. By default they are ordinary
records of the logger :data:`TASKS`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from daybreak_server.domain import log_context
from daybreak_server.domain.ids import TaskId
from daybreak_server.domain.task_changes import ChangeKind, TaskChange

TASKS = "daybreak.tasks"
"""The logger of these lines. Their messages contain no text from a workload; the field ``error`` may."""
WriteLine = Callable[[int, str, Mapping[str, object]], None]
"""Gets the level, the message and the fields of a line. Must not raise."""

_log = logging.getLogger(TASKS)
_LEVELS = {ChangeKind.RETRYING: logging.WARNING, ChangeKind.FAILED: logging.WARNING}


def _write_record(level: int, message: str, fields: Mapping[str, object]) -> None:
    _log.log(level, message, extra=dict(fields))


_write: WriteLine = _write_record


def write_lines_with(write: WriteLine | None) -> None:
    """Write lines with this function from now on; ``None``: as records of :data:`TASKS`."""
    global _write  # noqa: PLW0603 - the process has one log
    _write = write or _write_record


def log_task(kind: ChangeKind, task: TaskId, **details: str | int | float | None) -> None:
    """Log a change of a task. Never raises.

    :param details: Further fields, of those in ``logging.FIELDS``. Empty ones are left out.
    """
    level = _LEVELS.get(kind, logging.INFO)
    if not _log.isEnabledFor(level):
        return
    fields: dict[str, object] = log_context.about(task)
    fields["change"], fields["task"], fields["pool"] = kind.value, task, task.rpartition("_")[0]
    for name, value in details.items():
        if value is not None and value != "":
            fields[name] = value
    _write(level, f"task {task} {kind.value}", fields)


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
