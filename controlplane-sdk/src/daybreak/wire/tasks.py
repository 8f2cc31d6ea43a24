"""Tasks: the request that submits one, and the responses that describe it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from daybreak.wire.base import RequestModel, ResponseModel, Time
from daybreak.wire.errors import Problem
from daybreak.wire.wake import Wake

MAX_BATCH = 100
MAX_LIST = 100
MAX_METADATA = 16
DEFAULT_MAX_STRIKES = 3

PoolName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]


class TaskState(StrEnum):
    """The states of a task that clients see. A delayed task is shown as queued."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def terminal(self) -> bool:
        """Whether the task has ended."""
        return self not in (TaskState.QUEUED, TaskState.RUNNING)


class Priority(StrEnum):
    """The priority of a task among the tasks of its tenant."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


class SubmitRequest(RequestModel):
    """The body of ``POST /v1/tasks``."""

    pool: PoolName
    input: dict[str, Any] = Field(description="Checked against the pool's `input_schema`.")
    priority: Priority = Priority.NORMAL
    start_at: Time | None = Field(None, description="The task starts no earlier than this.")
    start_within_s: float | None = Field(
        None,
        gt=0,
        le=30 * 86400,
        description="The task expires if it has not started this many seconds after the submit or `start_at`.",
    )
    run_within_s: float | None = Field(
        None,
        gt=0,
        le=30 * 86400,
        description="The task expires if it has not ended this many seconds after its first start.",
    )
    max_strikes: int = Field(
        DEFAULT_MAX_STRIKES,
        ge=1,
        le=20,
        description="The number of failed attempts after which the task fails.",
    )
    metadata: dict[MetadataKey, MetadataValue] = Field(default_factory=dict, max_length=MAX_METADATA)


class BatchRequest(RequestModel):
    """The body of ``POST /v1/tasks:batch``. Each task is accepted or refused separately."""

    tasks: list[dict[str, Any]] = Field(min_length=1, max_length=MAX_BATCH)


class Progress(ResponseModel):
    """The progress of a task. ``fraction`` is the part of the whole task that is done, from 0 to 1."""

    fraction: float
    step: int | None = None
    steps: int | None = None
    eta_s: float | None = None


class QueuePosition(ResponseModel):
    """The position of a task in its queue. 1 is next. If many tenants wait, the position is a lower bound."""

    position: int
    eta_s: float | None = None


IDEMPOTENCY_KEY = (
    "A key belongs to one tenant and one pool: the same key in another pool makes another task. It is valid as long as "
    "its task exists: until the task's retention ends, or until the task is deleted."
)
"""The scope and lifetime of an ``Idempotency-Key``. Every description of this header contains this text."""


class Artifact(ResponseModel):
    """A file that a task produced."""

    name: str
    content_type: str
    size_bytes: int
    sha256: str
    url: str


class Usage(ResponseModel):
    """The GPU time of a task in seconds × ranks.

    The time of an attempt that did not end the task is wasted, except the time up to its last checkpoint, which counts
    as used.
    """

    gpu_seconds: float = 0.0
    wasted_gpu_seconds: float = 0.0


class TaskError(ResponseModel):
    """Why a task failed, or why its latest attempt failed."""

    code: str
    message: str
    attempt: int | None = None


class Links(ResponseModel):
    """URL paths of the task's resources."""

    self: str
    events: str
    ws: str
    cancel: str


class Task(ResponseModel):
    """A task as ``GET /v1/tasks/{id}`` returns it."""

    id: str
    object: Literal["task"] = "task"
    pool: str
    tenant: str
    state: TaskState
    phase: str | None = None
    cancel_requested: bool = False
    priority: Priority = Priority.NORMAL
    attempt: int = 0
    strikes: int = 0
    max_strikes: int = DEFAULT_MAX_STRIKES
    releases: int = 0
    resumed_from_step: int | None = None
    progress: Progress | None = None
    queue: QueuePosition | None = None
    wake: Wake | None = None
    input: dict[str, Any] | None = None
    metadata: dict[str, str] = Field(default_factory=dict)
    created_at: Time
    start_at: Time | None = None
    started_at: Time | None = None
    finished_at: Time | None = None
    expires_at: Time | None = None
    artifacts: list[Artifact] = Field(default_factory=list)
    usage: Usage | None = None
    error: TaskError | None = None
    replay_of: str | None = None
    traceparent: str | None = None
    links: Links


class TaskList(ResponseModel):
    """A page of tasks. Pass ``next`` as ``after`` to request the following page."""

    object: Literal["list"] = "list"
    data: list[Task]
    has_more: bool = False
    next: str | None = None


class BatchItem(ResponseModel):
    """The result of one task of a batch: the task (``status`` 202 or 200) or an error."""

    status: int
    task: Task | None = None
    error: Problem | None = None


class BatchResult(ResponseModel):
    """The response to a batch, in the order of the request."""

    object: Literal["batch"] = "batch"
    results: list[BatchItem]


class Estimate(ResponseModel):
    """How long a task would wait and run, from the pool's history. A figure that is not known yet is absent."""

    feasible: bool
    run_s: float | None = None
    wait_s: float | None = None
    gpu_seconds: float | None = None
