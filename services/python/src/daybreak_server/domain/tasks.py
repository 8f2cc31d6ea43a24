"""Tasks, attempts, leases and outcomes as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, IntFlag, StrEnum
from typing import Any

from daybreak_server.domain.ids import GroupId, TaskId, Token
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
        """Whether the task waits for its turn or for its time."""
        return self in (State.QUEUED, State.DELAYED)

    @property
    def public(self) -> State:
        """The state that clients see: a delayed task is shown as queued."""
        return State.QUEUED if self.waiting else self

    @property
    def terminal(self) -> bool:
        """Whether nothing can follow."""
        return not self.waiting and self is not State.RUNNING


class Priority(IntEnum):
    """Within one tenant a smaller number is served first."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


class Control(IntFlag):
    """What a worker is told with every answer; several bits may be set."""

    GO_ON = 0
    CANCEL = 1
    EXPIRE = 2
    DRAIN = 4
    STALE = 8


SPEC_VERSION = 1
"""The version of stored specs that this code writes and understands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewTask:
    """A task to be accepted. Times are milliseconds since the epoch; durations say their unit."""

    id: TaskId
    pool: str
    tenant: str
    priority: Priority = Priority.NORMAL
    input_json: str
    """The validated input as JSON text, ≤ 16 KB (larger inputs live in the blob store)."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    trace_context: TraceContext | None = None
    """The trace that the submit belonged to."""
    cost: float = 1.0
    """In the workload's units; proportional to run time within a pool."""
    estimate_s: float = 1.0
    """GPU-seconds that the tenant is charged at claim, until settle corrects it."""
    weight: float = 1.0
    """The tenant's share."""
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
    """A file in the blob store; ``key`` is where, ``name`` what clients call it."""

    name: str
    key: str
    content_type: str
    size_bytes: int
    sha256: str

    def description(self) -> dict[str, str | int]:
        """What events say of it: all but its place in the blob store. Where it is served, the API adds."""
        return {
            "name": self.name,
            "content_type": self.content_type,
            "size_bytes": self.size_bytes,
            "sha256": self.sha256,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRef:
    """The latest snapshot of a task in the blob store."""

    key: str
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    """All that the store knows of a task. ``None`` means not (yet) applicable."""

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
    """When retention ends: set by the terminal transition."""
    cancel_requested: bool = False
    artifacts: tuple[ArtifactRef, ...] = ()
    gpu_seconds: float | None = None
    wasted_gpu_seconds: float | None = None
    error_code: str | None = None
    error_message: str | None = None
    error_attempt: int | None = None
    replay_of: TaskId | None = None
    position: int | None = None
    """1 is next; an estimate under weighted fairness. Only while queued or delayed."""
    wait_s: float | None = None
    """Estimated seconds until it starts. Only while queued or delayed, when there is a history."""
    last_event_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """A leader's time-limited right to write to a task."""

    task: TaskId
    token: Token
    group: GroupId
    lease_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One attempt, as handed to a leader."""

    lease: Lease
    attempt: int
    tenant: str
    input_json: str
    metadata: Mapping[str, str] = field(default_factory=dict)
    trace_context: TraceContext | None = None
    """So that an attempt on any group can continue the trace."""
    checkpoint: CheckpointRef | None = None
    control: Control = Control.GO_ON


@dataclass(frozen=True, slots=True, kw_only=True)
class EventDraft:
    """An event that a worker wants in its task's stream."""

    type: str
    data: Mapping[str, Any]
    number: int = 0
    """Its place among the attempt's events, from 1: sent again, it is told once. 0: told each time."""


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
    """The work is done and its files are in the blob store."""

    artifacts: tuple[ArtifactRef, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The attempt failed. ``permanent`` ends the task; otherwise it is a strike."""

    code: str
    message: str
    permanent: bool = False
    reason: str = "error"
    """``error`` or ``stalled``: the ``reason`` of the ``retrying`` event."""

    def __post_init__(self) -> None:
        # Whatever said it, the store can take it: a failure that cannot be settled would be handed back for ever.
        object.__setattr__(self, "message", storable(self.message))
        object.__setattr__(self, "code", short_name(self.code))


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """The group gives the task back (drain, pre-emption): no strike, its original place, checkpoint kept."""

    reason: str = "drain"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """The group has stopped because it was told to: by cancel, or by the run deadline."""


Outcome = Finished | Failed | Released | Stopped


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """The answer to an outcome: the state the task is in now, and perhaps the next task.

    ``stale`` means that the token was not the current one: nothing was changed and the worker abandons the
    task and its files. The same outcome sent again is answered as the first time.
    """

    state: State
    stale: bool = False
    next: Claim | None = None
