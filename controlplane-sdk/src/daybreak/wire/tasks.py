"""Tasks: what is submitted, and what is told of it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from daybreak.wire.base import Answer, Request, Time
from daybreak.wire.errors import Problem

MAX_BATCH = 100
MAX_LIST = 100
MAX_METADATA = 16
DEFAULT_MAX_STRIKES = 3

PoolName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,30}$")]
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]


class TaskState(StrEnum):
    """The states that a client sees; a delayed task is shown as queued."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def terminal(self) -> bool:
        """Whether nothing can follow."""
        return self not in (TaskState.QUEUED, TaskState.RUNNING)


class Priority(StrEnum):
    """Within one tenant, a higher priority is served first."""

    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


class SubmitRequest(Request):
    """The body of ``POST /v1/tasks``."""

    pool: PoolName
    input: dict[str, Any] = Field(description="Checked against the pool's `input_schema`.")
    priority: Priority = Priority.NORMAL
    start_at: Time | None = Field(None, description="Not before this time.")
    start_within_s: float | None = Field(
        None, gt=0, le=30 * 86400, description="Expires if it has not begun by then."
    )
    run_within_s: float | None = Field(
        None, gt=0, le=30 * 86400, description="Expires if it has not ended by then."
    )
    max_strikes: int = Field(
        DEFAULT_MAX_STRIKES, ge=1, le=20, description="Failed attempts before it is a failure."
    )
    metadata: dict[MetadataKey, MetadataValue] = Field(default_factory=dict, max_length=MAX_METADATA)


class BatchRequest(Request):
    """The body of ``POST /v1/tasks:batch``: each task is taken or refused on its own."""

    tasks: list[dict[str, Any]] = Field(min_length=1, max_length=MAX_BATCH)


class Progress(Answer):
    """How far a task is: ``fraction`` in 0..1 of the whole task."""

    fraction: float
    step: int | None = None
    steps: int | None = None
    eta_s: float | None = None


class QueuePlace(Answer):
    """Where a queued task stands: ``position`` 1 is next. Beyond the counted range it is a lower bound."""

    position: int
    eta_s: float | None = None


IDEMPOTENCY_KEY = (
    "A key belongs to one tenant and one pool: the same key in another pool makes another task. It lives as long as "
    "its task: until the pool's retention ends, or until the task is deleted."
)
"""How far an ``Idempotency-Key`` reaches and how long it lives, for all who describe it."""


class Wake(Answer):
    """What a pool without a ready group is doing to get one; ``message`` says what keeps it from that, if anything."""

    phase: str
    since: Time | None = None
    eta_s: float | None = None
    message: str | None = None


class Artifact(Answer):
    """A file that a task left."""

    name: str
    content_type: str
    size_bytes: int
    sha256: str
    url: str


class Usage(Answer):
    """Seconds × ranks: of the attempt that ended the task, and of the attempts that were lost."""

    gpu_seconds: float = 0.0
    wasted_gpu_seconds: float = 0.0


class TaskError(Answer):
    """Why a task failed, or why its latest attempt did."""

    code: str
    message: str
    attempt: int | None = None


class Links(Answer):
    """Where to go from here; paths of the server."""

    self: str
    events: str
    ws: str
    cancel: str


class Task(Answer):
    """A task as ``GET /v1/tasks/{id}`` shows it."""

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
    queue: QueuePlace | None = None
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
    links: Links


class TaskList(Answer):
    """A page of tasks; ``next`` is the ``after`` of the following page."""

    object: Literal["list"] = "list"
    data: list[Task]
    has_more: bool = False
    next: str | None = None


class BatchItem(Answer):
    """What became of one task of a batch: a task (``status`` 202 or 200) or a problem."""

    status: int
    task: Task | None = None
    error: Problem | None = None


class BatchResult(Answer):
    """The answer to a batch, in the order of the request."""

    object: Literal["batch"] = "batch"
    results: list[BatchItem]


class Estimate(Answer):
    """What a task would take, from the pool's own history; absent figures are not known yet."""

    feasible: bool
    run_s: float | None = None
    wait_s: float | None = None
    gpu_seconds: float | None = None
