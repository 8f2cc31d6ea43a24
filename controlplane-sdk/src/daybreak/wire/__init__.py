"""The JSON of the API (v1), shared by server, client and tests. It depends on pydantic only.

Changes are additive only. Readers ignore unknown fields; requests with unknown fields are refused. Times are RFC 3339
in UTC with milliseconds; durations end in ``_s`` (seconds); sizes end in ``_bytes``. An absent field is unknown.
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
    QueuePosition,
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
    "QueuePosition",
    "SubmitRequest",
    "Task",
    "TaskError",
    "TaskList",
    "TaskState",
    "Usage",
    "Wake",
    "WakeHistory",
]
