"""The JSON that server, client, page and tests agree on (v1). Pydantic only.

Additive changes only. Readers ignore unknown fields; requests refuse them. Times are RFC 3339 UTC with
milliseconds; durations end in ``_s`` (seconds); sizes end in ``_bytes``. Absent means unknown.
"""

from daybreak.wire.errors import ErrorCode, FieldError, Problem
from daybreak.wire.events import Event, EventType
from daybreak.wire.pools import GroupLoad, Pool, PoolCondition, PoolGroup, PoolList, WakeHistory
from daybreak.wire.tasks import (
    IDEMPOTENCY_KEY,
    Artifact,
    BatchItem,
    BatchRequest,
    BatchResult,
    Estimate,
    Links,
    Priority,
    Progress,
    QueuePlace,
    SubmitRequest,
    Task,
    TaskError,
    TaskList,
    TaskState,
    Usage,
    Wake,
)

__all__ = [
    "IDEMPOTENCY_KEY",
    "Artifact",
    "BatchItem",
    "BatchRequest",
    "BatchResult",
    "ErrorCode",
    "Estimate",
    "Event",
    "EventType",
    "FieldError",
    "GroupLoad",
    "Links",
    "Pool",
    "PoolCondition",
    "PoolGroup",
    "PoolList",
    "Priority",
    "Problem",
    "Progress",
    "QueuePlace",
    "SubmitRequest",
    "Task",
    "TaskError",
    "TaskList",
    "TaskState",
    "Usage",
    "Wake",
    "WakeHistory",
]
