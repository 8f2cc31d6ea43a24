"""Turns a task's events into the phase, the progress, the ETA, and the time spent in each phase.

:class:`Timeline` is pure. Call :meth:`Timeline.update` with each event; the timeline keeps the current state.
For some events (a start, a retry, a log, a new problem of the pool, a gap in the history) the method returns a line to
print. The progress bar shows the current state.

The time by phase is measured as follows. An event that begins a phase (queued, position, wake, started, retrying)
ends the phase before it. A progress event arrives when a step has ended, so the time since the previous event belongs
to the phase that the progress event names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from daybreak.cli.output import seconds
from daybreak.wire import Event, EventType, Task, TaskState

PHASES = {
    # phases of a wake
    "detect": "noticing the task",
    "pods": "getting machines",
    "image": "pulling the image",
    "ray": "starting Ray",
    "process_group": "connecting the ranks",
    "model": "loading the model",
    "warm_up": "warming up",
    "ready": "ready",
    # phases of the work
    "load": "loading",
    "encode_prompt": "reading the prompt",
    "denoise": "denoising",
    "decode": "decoding frames",
    "encode": "encoding the video",
    "upload": "storing the files",
}
QUEUE = "queue"
START = "start"
RETRY = "retry"
LABELS = PHASES | {QUEUE: "in the queue", START: "starting", RETRY: "waiting to retry"}
SHORTEST_ETA_S = 0.05
"""An ETA shorter than this is not shown."""
REASONS = {
    "error": "an error",
    "stalled": "a stalled step",
    "lease_lost": "a lost lease",
    "released": "a group that was shut down",
}


def phase_label(phase: str) -> str:
    """The label of a phase, as users see it."""
    return LABELS.get(phase, phase.replace("_", " "))


def ranks(count: int) -> str:
    """The number of ranks with its noun: ``1 rank`` or ``2 ranks``."""
    return f"{count} rank" if count == 1 else f"{count} ranks"


@dataclass
class Timeline:
    """The state of a task, computed from its events."""

    label: str = "submitted"
    fraction: float | None = None
    """Progress of the whole task, in 0..1; ``None`` while it is unknown."""
    step: int | None = None
    steps: int | None = None
    eta_s: float | None = None
    state: TaskState = TaskState.QUEUED
    attempt: int = 0
    last_id: str | None = None
    reason: str | None = None
    """Why the task was cancelled or expired."""
    spent: dict[str, float] = field(default_factory=dict)
    """Seconds by phase, in the order of the phases."""
    _problem: str | None = None
    """The latest reason why the pool has no ready group."""
    _current: str = QUEUE
    _since: datetime | None = None

    @classmethod
    def of(cls, task: Task) -> Timeline:
        """The timeline of a task before its first event."""
        timeline = cls(state=task.state, _since=task.created_at)
        if task.queue is not None:
            timeline._queued(task.queue.position, task.queue.eta_s)
        return timeline

    def update(self, event: Event) -> str | None:
        """Apply the next event. Returns a line to print, if any."""
        if event.id is not None:
            self.last_id = event.id
        data = event.data
        match event.type:
            case EventType.QUEUED | EventType.POSITION:
                self._enter(QUEUE if self._current not in PHASES else self._current, event.at)
                self._queued(_number(data.get("position")), _number(data.get("eta_s")))
            case EventType.WAKE:
                return self._wake(event)
            case EventType.STARTED:
                return self._started(event)
            case EventType.PROGRESS:
                self._progress(event)
            case EventType.RETRYING:
                return self._retrying(event)
            case EventType.LOG:
                return f"{data.get('level', 'info')}: {data.get('message', '')}"
            case EventType.RESET:
                return self._reset(event)
            case EventType.SUCCEEDED | EventType.FAILED | EventType.CANCELLED | EventType.EXPIRED:
                self._ended(event)
            case _:
                pass
        return None

    @property
    def line(self) -> str:
        """The current state in one line, without the fraction."""
        parts = [self.label]
        if self.steps and self.state is TaskState.RUNNING:
            parts.append(f"step {self.step or 0}/{self.steps}")
        if self.eta_s is not None and self.eta_s >= SHORTEST_ETA_S and not self.state.terminal:
            parts.append(f"about {seconds(self.eta_s)} left")
        return " · ".join(parts)

    def _enter(self, phase: str, at: datetime) -> None:
        """Begin a phase at the time ``at``. The time before it belongs to the previous phase."""
        self._spend(self._current, at)
        self._current = phase

    def _spend(self, phase: str, at: datetime) -> None:
        if self._since is not None:
            self.spent[phase] = self.spent.get(phase, 0.0) + max(0.0, (at - self._since).total_seconds())
        self._since = at if self._since is None else max(at, self._since)

    def _queued(self, position: float | None, eta_s: float | None) -> None:
        self.state = TaskState.QUEUED
        place = (
            "next in line" if position == 1 else f"number {position:.0f} in line" if position else "waiting"
        )
        self.label = f"queued, {place}"
        self.fraction, self.step, self.steps, self.eta_s = None, None, None, eta_s

    def _wake(self, event: Event) -> str | None:
        phase = str(event.data.get("phase", ""))
        self._enter(phase or QUEUE, event.at)
        self.label = f"waking: {phase_label(phase)}"
        self.eta_s = _number(event.data.get("eta_s"))
        message, before = event.data.get("message"), self._problem
        self._problem = str(message) if message else None
        if self._problem is None or self._problem == before:
            return None
        return f"problem: {self._problem}"

    def _started(self, event: Event) -> str:
        self._enter(START, event.at)
        self.state, self.attempt, self.label, self.eta_s = (
            TaskState.RUNNING,
            event.attempt or 1,
            phase_label(START),
            None,
        )
        step, count = event.data.get("resumed_from_step"), _integer(event.data.get("ranks"))
        text = f"started on {event.data.get('group', 'a group')}" + (f", {ranks(count)}" if count else "")
        if self.attempt > 1:
            text += f", attempt {self.attempt}"
        return text + (f", resuming after step {step}" if step else "")

    def _progress(self, event: Event) -> None:
        data = event.data
        phase = str(data.get("phase", START))
        self._spend(phase, event.at)
        self._current = phase
        self.state, self.label = TaskState.RUNNING, phase_label(phase)
        self.fraction, self.eta_s = _number(data.get("fraction")), _number(data.get("eta_s"))
        self.step, self.steps = _integer(data.get("step")), _integer(data.get("steps"))

    def _retrying(self, event: Event) -> str:
        self._enter(RETRY, event.at)
        reason = str(event.data.get("reason", ""))
        delay = _number(event.data.get("delay_s"))
        self.state, self.label, self.eta_s = TaskState.QUEUED, phase_label(RETRY), None
        text = f"retrying after {REASONS.get(reason, reason)}"
        if event.data.get("message"):
            text += f": {event.data['message']}"
        return text + (f" (in {seconds(delay)})" if delay else "")

    def _reset(self, event: Event) -> str:
        try:
            task = Task.model_validate(event.data.get("task"))
        except ValueError:
            return "some events were lost; following from here"
        self.state = task.state
        if task.progress is not None:
            self.fraction, self.eta_s = task.progress.fraction, task.progress.eta_s
            self.step, self.steps = task.progress.step, task.progress.steps
            self.label = phase_label(task.phase or START)
        return "older events were deleted; following from here"

    def _ended(self, event: Event) -> None:
        self._spend(self._current, event.at)
        self.state, self.label, self.eta_s = TaskState(event.type.value), event.type.value, None
        if self.state is TaskState.SUCCEEDED:
            self.fraction = 1.0
        self.reason = event.data.get("reason")

    def phases(self) -> list[tuple[str, float]]:
        """The phases in words, with their seconds. A wait or a start that took almost no time is left out."""
        return [
            (phase_label(name), spent_s)
            for name, spent_s in self.spent.items()
            if spent_s >= 0.005 or name in PHASES
        ]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
