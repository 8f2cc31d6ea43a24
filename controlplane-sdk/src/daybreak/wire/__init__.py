"""The JSON of the API (v1), shared by server, client and tests. This package depends on pydantic only.

Fields are added, never changed or removed. A client ignores unknown fields in a response; the server refuses unknown
fields in a request. Times are RFC 3339 in UTC with milliseconds. Durations are in seconds and their names end in
``_s``; the names of sizes end in ``_bytes``. A field is absent if its value is unknown or does not apply.

:mod:`daybreak.wire.recordings` reads the audio files that the server and ``daybreak speak`` accept.
"""

from daybreak.wire.errors import ErrorCode, FieldError, Problem
from daybreak.wire.events import Event, EventList, EventType, LogLine
from daybreak.wire.models import (
    Model,
    ModelDeleted,
    ModelList,
    ModelPair,
    ModelState,
    RegisterModelRequest,
    ServingHealth,
    ServingPoolHealth,
    Worker,
    WorkerList,
)
from daybreak.wire.pools import GroupLoad, Pool, PoolCondition, PoolGroup, PoolList, PoolSessions, WakeHistory
from daybreak.wire.sessions import (
    OpenSessionRequest,
    Session,
    SessionError,
    SessionEvent,
    SessionEventType,
    SessionLinks,
    SessionList,
    SessionState,
)
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
)
from daybreak.wire.wake import Wake
from daybreak.wire.workers import (
    AssignedModel,
    WorkerAssignments,
    WorkerGpu,
    WorkerHeartbeat,
    WorkerModel,
    WorkerModelState,
    WorkerRegistered,
    WorkerRegistration,
)

__all__ = [
    "IDEMPOTENCY_KEY",
    "Artifact",
    "AssignedModel",
    "BatchItem",
    "BatchRequest",
    "BatchResult",
    "ErrorCode",
    "Estimate",
    "Event",
    "EventList",
    "EventType",
    "FieldError",
    "GroupLoad",
    "Links",
    "LogLine",
    "Model",
    "ModelDeleted",
    "ModelList",
    "ModelPair",
    "ModelState",
    "OpenSessionRequest",
    "Pool",
    "PoolCondition",
    "PoolGroup",
    "PoolList",
    "PoolSessions",
    "Priority",
    "Problem",
    "Progress",
    "QueuePosition",
    "RegisterModelRequest",
    "ServingHealth",
    "ServingPoolHealth",
    "Session",
    "SessionError",
    "SessionEvent",
    "SessionEventType",
    "SessionLinks",
    "SessionList",
    "SessionState",
    "SubmitRequest",
    "Task",
    "TaskError",
    "TaskList",
    "TaskState",
    "Usage",
    "Wake",
    "WakeHistory",
    "Worker",
    "WorkerAssignments",
    "WorkerGpu",
    "WorkerHeartbeat",
    "WorkerList",
    "WorkerModel",
    "WorkerModelState",
    "WorkerRegistered",
    "WorkerRegistration",
]
