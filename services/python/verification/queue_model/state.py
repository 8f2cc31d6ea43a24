"""The state of the reference model: tasks, attempts and groups."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from daybreak_server.domain.policy import CLEANUP_RETRY_MS, GROUP_FAILURES_MAX, RELEASES_MAX
from daybreak_server.domain.tasks import ArtifactRef, CheckpointRef, Failed, NewTask, State
from daybreak_server.domain.transitions import Trigger


@dataclass(slots=True)
class ModelAttempt:
    """A running attempt."""

    token: str
    group: str
    ranks: int
    claimed_ms: int
    """A time of the lease clock, like ``checkpoint_ms``."""
    charge: float
    lease_end: int
    checkpoint_ms: int | None = None
    last_event_number: int = 0
    """The number of the last numbered event that was reported."""


@dataclass(slots=True)
class ModelTask:
    """A task, with everything that influences what happens to it."""

    new: NewTask
    place: int
    created_ms: int
    state: State
    attempt: int = 0
    strikes: int = 0
    releases: int = 0
    group_failures: int = 0
    """How many of the releases came from groups that failed."""
    running: ModelAttempt | None = None
    queued_ms: int = 0
    """When the task last entered the queue."""
    step: int = 0
    """The last step that a group reported."""
    cancel_step: int = 0
    """The value of ``step`` when the cancel was requested."""
    due_ms: int | None = None
    start_by: int | None = None
    run_by: int | None = None
    started_ms: int | None = None
    finished_ms: int | None = None
    expires_ms: int | None = None
    cancel_at: int | None = None
    cancel_reason: str = ""
    checkpoint: CheckpointRef | None = None
    resumed_from_step: int | None = None
    artifacts: tuple[ArtifactRef, ...] = ()
    error: dict[str, Any] | None = None
    used_ms: int = 0
    wasted_ms: int = 0
    settled: tuple[str, State] | None = None
    events: list[tuple[str, int, dict[str, Any]]] = field(default_factory=list)
    history: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.queued_ms = self.created_ms

    @property
    def deadline(self) -> int | None:
        """The start deadline until the task's first start, afterwards the run deadline."""
        return self.start_by if self.started_ms is None else self.run_by

    @property
    def usage(self) -> dict[str, float]:
        """GPU time as events show it."""
        return {"gpu_seconds": self.used_ms / 1000, "wasted_gpu_seconds": self.wasted_ms / 1000}


@dataclass(slots=True)
class ModelGroup:
    """A registered group."""

    end: int
    drain: bool = False
    tasks: list[str] = field(default_factory=list)
    """In the order in which the group claimed them."""
    lost: bool = False
    ready_ms: int | None = None
    """When the group first became ready, if it measured its wake."""
    wake: dict[str, float] = field(default_factory=dict)

    def woke(self, wake: dict[str, float], now: int) -> None:
        """Record when the group first became ready, and how long each phase of its wake took."""
        if wake and not self.tasks and self.ready_ms is None:
            self.ready_ms, self.wake = now, {f"{phase}_s": seconds for phase, seconds in wake.items()}

    def wake_field(self, created_ms: int, now: int) -> dict[str, dict[str, float]]:
        """The field ``wake`` of the ``started`` event. It exists only if the task was created before the group was
        ready."""
        if self.ready_ms is None or self.ready_ms <= created_ms:
            return {}
        return {"wake": {**self.wake, "since_ready_s": max(0, now - self.ready_ms) / 1000}}


def unexplained(task: ModelTask, event: Trigger, why: str) -> Failed:
    """The failure of an attempt whose group reported no failure."""
    if event is Trigger.LEASE_LOST and task.running is not None:
        group = task.running.group
        message = f"Group {group} stopped renewing the lease of the task. The log of the group may say why."
        return Failed(code="lease_lost", message=message, reason="lease_lost")
    if event is Trigger.GROUP_FAILED and task.group_failures >= GROUP_FAILURES_MAX:
        many = f"more than {GROUP_FAILURES_MAX} times"
        message = f"The groups that ran this task failed {many}. Look for the cause in their logs. Last failure: {why}"
        return Failed(code="group_failed", message=message)
    message = f"The task was released more than {RELEASES_MAX} times. Last reason: {why}"
    return Failed(code="released", message=message, reason="released")


def oldest_wait_ms(tasks: Iterable[ModelTask], priority: int, now: int) -> int:
    """The longest time that a queued task of a priority has waited since it last entered the queue; 0 if none waits."""
    queued = [task for task in tasks if task.state is State.QUEUED and task.new.priority == priority]
    return max([0, *(now - task.queued_ms for task in queued)])


def any_unpromoted(tasks: Iterable[ModelTask], now: int) -> bool:
    """Whether some delayed task is due, and no tick has promoted it yet."""
    return any(task.state is State.DELAYED and (task.due_ms or 0) <= now for task in tasks)


def report_due(due: dict[str, int], now: int) -> set[str]:
    """Return the names whose time in ``due`` has come. Each is due again after ``CLEANUP_RETRY_MS``, unless it has
    been removed from ``due`` by then."""
    ready = {name for name, at in due.items() if at <= now}
    for name in ready:
        due[name] = now + CLEANUP_RETRY_MS
    return ready
