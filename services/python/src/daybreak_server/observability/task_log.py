"""One line of the log for each change of a task's state, written by the process that made the change.

A line is written at most once. It is missing if the process dies between the change and the line, or if the store's
answer is lost. The events of the task are the complete record.
"""

from __future__ import annotations

import logging

from daybreak_server.domain.ids import pool_of
from daybreak_server.domain.task_changes import ChangeKind, TaskChange

TASKS = "daybreak.tasks"
"""The logger of these lines. Their messages contain no text from a workload; the field ``error`` may."""
_log = logging.getLogger(TASKS)
_LEVELS = {ChangeKind.RETRYING: logging.WARNING, ChangeKind.FAILED: logging.WARNING}


def log_change(change: TaskChange, *, input_json: str | None = None) -> None:
    """Log the change. Never raises.

    :param input_json: The task's input, which only ``log.inputs`` allows in the log.
    """
    level = _LEVELS.get(change.kind, logging.INFO)
    if not _log.isEnabledFor(level):
        return
    fields: dict[str, object] = {"change": change.kind.value, "task": change.task}
    for name, value in (
        ("attempt", change.attempt),
        ("pool", pool_of(change.task)),
        ("group", change.group),
        ("tenant", change.tenant),
        ("trace_id", change.trace_id),
        ("reason", change.reason),
        ("error", change.message),
        ("input", input_json),
    ):
        if value:
            fields[name] = value
    if change.kind is ChangeKind.RETRYING:
        fields["strikes"], fields["delay_s"] = change.strikes, change.delay_s
    _log.log(level, f"task {change.task} {change.kind.value}", extra=fields)
