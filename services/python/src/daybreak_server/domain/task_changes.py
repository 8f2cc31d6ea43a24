"""Changes of tasks' states, as seen by the process that makes the change. Each becomes one line of the log."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from daybreak_server.domain.ids import TaskId


class ChangeKind(StrEnum):
    """What happened to a task. Most of these kinds are also types of events."""

    SUBMITTED = "submitted"
    QUEUED = "queued"
    """A delayed task, or one that waited for its retry, became due."""
    STARTED = "started"
    RETRYING = "retrying"
    """An attempt failed, which is a strike. The task waits for another attempt."""
    RELEASED = "released"
    """A group returned the task to the queue without a strike."""
    CANCELLING = "cancelling"
    """A cancel of a running task was requested. Its group stops at the next step."""
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    DELETED = "deleted"
    """An ended task was deleted, because its retention was over, or because its deletion was requested."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskChange:
    """A change that this process made. A field is empty if its value is unknown or does not apply."""

    task: TaskId
    kind: ChangeKind
    attempt: int = 0
    group: str = ""
    """The group that holds the task, or held it last."""
    tenant: str = ""
    trace_id: str = ""
    reason: str = ""
    """Why the task is retried, cancelled or expired, or the code of the error."""
    message: str = ""
    """The error, or why the group released the task."""
    strikes: int | None = None
    delay_s: float | None = None
    """Seconds until the next attempt."""
