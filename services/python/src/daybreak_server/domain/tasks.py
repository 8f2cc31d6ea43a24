"""Tasks, attempts, leases and outcomes as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag, StrEnum
from typing import Any

from daybreak_server.domain.ids import AttemptToken, GroupId, TaskId
from daybreak_server.domain.policy import MAX_STRIKES
from daybreak_server.domain.text import short_name, storable
from daybreak_server.domain.tracing import TraceContext


class State(StrEnum):
    """States of a task. A delayed task is shown to clients as queued."""

    QUEUED = "queued"
    DELAYED = "delayed"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"

    @property
    def waiting(self) -> bool:
        """Whether the task waits for its turn or for its start time."""
        return self in (State.QUEUED, State.DELAYED)

    @property
    def public(self) -> State:
        """The state that clients see: a delayed task is shown as queued."""
        return State.QUEUED if self.waiting else self

    @property
    def terminal(self) -> bool:
        """Whether the state is final."""
        return not self.waiting and self is not State.RUNNING


class Priority(IntEnum):
    """The priority within a tenant. A smaller number is served first."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


class Control(IntFlag):
    """Instructions to a leader, as bits in every reply of the store. Several bits may be set."""

    CONTINUE = 0
    CANCEL = 1
    EXPIRE = 2
    DRAIN = 4
    STALE = 8


SPEC_VERSION = 1
"""The version of a stored task's *spec* (its metadata, trace context and input) that this code writes and
understands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """A task to submit. Times are milliseconds since the epoch; durations name their unit."""

    id: TaskId
    pool: str
    tenant: str
    priority: Priority = Priority.NORMAL
    input_json: str
    """The validated input as JSON text. The API refuses more than 16 KiB."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    trace_context: TraceContext | None = None
    """The trace of the submit request."""
    cost: float = 1.0
    """The cost in the workload's units. Within a pool, it is proportional to the run time."""
    estimate_s: float = 1.0
    """GPU-seconds that the tenant is charged at claim. When the attempt ends, the charge is corrected."""
    weight: float = 1.0
    """The tenant's weight in the fair queue."""
    start_at_ms: int | None = None
    start_within_ms: int | None = None
    run_within_ms: int | None = None
    max_strikes: int = MAX_STRIKES
    retention_s: float = 7 * 86400
    idempotency_key: str | None = None
    body_hash: str = ""
    replay_of: TaskId | None = None
    spec_version: int = SPEC_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRef:
    """A file in the blob store. ``key`` is its key there, ``name`` its public name."""

    name: str
    key: str
    content_type: str
    size_bytes: int
    sha256: str

    def description(self) -> dict[str, str | int]:
        """The artifact as events describe it: without its key in the blob store. The API adds the URL."""
        return {
            "name": self.name,
            "content_type": self.content_type,
            "size_bytes": self.size_bytes,
            "sha256": self.sha256,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRef:
    """The latest checkpoint of a task in the blob store."""

    key: str
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """What the store returns about a task. ``None`` means not (yet) applicable."""

    id: TaskId
    pool: str
    tenant: str
    state: State
    priority: Priority
    input_json: str
    metadata: Mapping[str, str]
    trace_context: TraceContext | None = None
    attempt: int = 0
    strikes: int = 0
    max_strikes: int = MAX_STRIKES
    releases: int = 0
    phase: str | None = None
    fraction: float | None = None
    step: int | None = None
    steps: int | None = None
    eta_s: float | None = None
    resumed_from_step: int | None = None
    created_ms: int = 0
    start_at_ms: int | None = None
    started_ms: int | None = None
    finished_ms: int | None = None
    expires_ms: int | None = None
    """When retention ends; set when the task ends."""
    cancel_requested: bool = False
    artifacts: tuple[ArtifactRef, ...] = ()
    gpu_seconds: float | None = None
    wasted_gpu_seconds: float | None = None
    error_code: str | None = None
    error_message: str | None = None
    error_attempt: int | None = None
    replay_of: TaskId | None = None
    position: int | None = None
    """The estimated position in the queue; 1 is next. ``None`` unless the task waits."""
    wait_s: float | None = None
    """The estimated seconds until the task starts. ``None`` unless the task waits and the pool has a history."""
    last_event_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A leader's time-limited right to write to a task."""

    task: TaskId
    token: AttemptToken
    group: GroupId
    lease_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """An attempt that a leader has claimed."""

    lease: Lease
    attempt: int
    tenant: str
    input_json: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    trace_context: TraceContext | None = None
    """Lets the attempt continue the trace of the submit request."""
    checkpoint: CheckpointRef | None = None
    control: Control = Control.CONTINUE
    queued_ms: int | None = None
    """When the task came into the queue for this attempt: when it was submitted, became due, or was released."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDraft:
    """An event that a leader appends to its task's stream."""

    type: str
    data: Mapping[str, Any]
    number: int = 0
    """The event's number within the attempt, from 1. If a report is repeated, the store writes the event only once. An
    event with the number 0 is always written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """An event as stored."""

    id: str
    task: TaskId
    type: str
    at_ms: int
    attempt: int
    data: Mapping[str, Any]


# ── outcomes of an attempt ────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The work is complete, and its files are in the blob store."""

    artifacts: tuple[ArtifactRef, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The attempt failed, which is a strike. A ``permanent`` failure also ends the task at once."""

    code: str
    message: str
    permanent: bool = False
    reason: str = "error"
    """``error`` or ``stalled``: the ``reason`` of the ``retrying`` event."""

    def __post_init__(self) -> None:
        # The text may come from anywhere. If the store refused it, the attempt could never be settled.
        object.__setattr__(self, "message", storable(self.message))
        object.__setattr__(self, "code", short_name(self.code))


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """The group releases the task (drain, pre-emption). The task keeps its place and checkpoint. Its first
    ``RELEASES_MAX`` releases are no strikes."""

    reason: str = "drain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """The group stopped because of a cancel or the run deadline."""


Outcome = Finished | Failed | Released | Stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The result of a settle: the new state of the task, and the next claim if one was requested and found.

    ``stale`` means that the token was not the current one: nothing changed, and the leader must abandon the task and
    its files. A repeated settle has the same result as the first one, but ``repeated`` is true.
    """

    state: State
    stale: bool = False
    repeated: bool = field(default=False, compare=False)
    next: Claim | None = None
