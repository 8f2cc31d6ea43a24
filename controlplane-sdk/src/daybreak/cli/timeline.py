"""What a task's events mean to the one who waits: where it is, how far, and where the time went. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from daybreak.cli.output import seconds
from daybreak.wire import Event, EventType, Task, TaskState

PHASES = {
    # of a wake
    "detect": "noticing the task",
    "pods": "getting machines",
    "image": "pulling the image",
    "ray": "starting Ray",
    "process_group": "joining the ranks",
    "model": "loading the model",
    "warm_up": "warming up",
    "ready": "ready",
    # of the work
    "load": "loading",
    "encode_prompt": "reading the prompt",
    "denoise": "denoising",
    "decode": "decoding frames",
    "encode": "encoding the video",
    "upload": "storing the files",
}
QUEUE = "queue"
START = "start"
RETRY = "waiting to try again"
SOON_S = 0.05
"""What is left is not worth a word below this."""
REASONS = {
    "error": "an error",
    "stalled": "a step that did not end",
    "lease_lost": "a lost worker",
    "released": "a worker that had to go",
}


def phase_words(phase: str) -> str:
    """A phase in words."""
    return PHASES.get(phase, phase.replace("_", " "))


def ranks(count: int) -> str:
    """A count of ranks in words."""
    return f"{count} rank" if count == 1 else f"{count} ranks"


@dataclass
class Story:
    """Folded from events, one at a time."""

    label: str = "handed in"
    fraction: float | None = None
    """Of the whole task, in 0..1; ``None`` while nothing can be said."""
    step: int | None = None
    steps: int | None = None
    eta_s: float | None = None
    state: TaskState = TaskState.QUEUED
    attempt: int = 0
    last_id: str | None = None
    reason: str | None = None
    """Why it was cancelled or expired."""
    spent: dict[str, float] = field(default_factory=dict)
    """Seconds by phase, in the order in which the phases came."""
    _obstacle: str | None = None
    """What keeps the pool from a ready group, as it was told last."""
    _current: str = QUEUE
    _since: datetime | None = None

    @classmethod
    def of(cls, task: Task) -> Story:
        """The story of a task so far, from one look at it."""
        story = cls(state=task.state, _since=task.created_at)
        if task.queue is not None:
            story._queued(task.queue.position, task.queue.eta_s)
        return story

    def tell(self, event: Event) -> str | None:
        """Take the next event in. Gives a line to keep when the event is worth one."""
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
        """Where the task is, in one line without the fraction."""
        parts = [self.label]
        if self.steps and self.state is TaskState.RUNNING:
            parts.append(f"step {self.step or 0}/{self.steps}")
        if self.eta_s is not None and self.eta_s >= SOON_S and not self.state.terminal:
            parts.append(f"about {seconds(self.eta_s)} left")
        return " · ".join(parts)

    def _enter(self, phase: str, at: datetime) -> None:
        """From now on it is this phase: the time until now belonged to the one before."""
        self._spend(self._current, at)
        self._current = phase

    def _spend(self, phase: str, at: datetime) -> None:
        if self._since is not None:
            self.spent[phase] = self.spent.get(phase, 0.0) + max(0.0, (at - self._since).total_seconds())
        self._since = at if self._since is None else max(at, self._since)

    def _queued(self, position: float | None, eta_s: float | None) -> None:
        self.state = TaskState.QUEUED
        where = (
            "next in line" if position == 1 else f"number {position:.0f} in line" if position else "waiting"
        )
        self.label = f"queued, {where}"
        self.fraction, self.step, self.steps, self.eta_s = None, None, None, eta_s

    def _wake(self, event: Event) -> str | None:
        phase = str(event.data.get("phase", ""))
        self._enter(phase or QUEUE, event.at)
        self.label = f"waking: {phase_words(phase)}"
        self.eta_s = _number(event.data.get("eta_s"))
        message, before = event.data.get("message"), self._obstacle
        self._obstacle = str(message) if message else None
        if self._obstacle is None or self._obstacle == before:
            return None
        return f"not in order: {self._obstacle}"

    def _started(self, event: Event) -> str:
        self._enter(START, event.at)
        self.state, self.attempt, self.label, self.eta_s = (
            TaskState.RUNNING,
            event.attempt or 1,
            "starting",
            None,
        )
        resumed, members = event.data.get("resumed_from_step"), _whole(event.data.get("ranks"))
        words = f"started on {event.data.get('group', 'a group')}" + (
            f", {ranks(members)}" if members else ""
        )
        if self.attempt > 1:
            words += f", attempt {self.attempt}"
        return words + (f", going on after step {resumed}" if resumed else "")

    def _progress(self, event: Event) -> None:
        data = event.data
        phase = str(data.get("phase", START))
        # Progress is told when a step has ended: the time since the event before it was this phase's.
        self._spend(phase, event.at)
        self._current = phase
        self.state, self.label = TaskState.RUNNING, phase_words(phase)
        self.fraction, self.eta_s = _number(data.get("fraction")), _number(data.get("eta_s"))
        self.step, self.steps = _whole(data.get("step")), _whole(data.get("steps"))

    def _retrying(self, event: Event) -> str:
        self._enter(RETRY, event.at)
        reason = str(event.data.get("reason", ""))
        delay = _number(event.data.get("delay_s"))
        self.state, self.label, self.eta_s = TaskState.QUEUED, RETRY, None
        words = f"trying again after {REASONS.get(reason, reason)}"
        if event.data.get("message"):
            words += f": {event.data['message']}"
        return words + (f" (in {seconds(delay)})" if delay else "")

    def _reset(self, event: Event) -> str:
        try:
            task = Task.model_validate(event.data.get("task"))
        except ValueError:
            return "some events are gone; following from here"
        self.state = task.state
        if task.progress is not None:
            self.fraction, self.eta_s = task.progress.fraction, task.progress.eta_s
            self.step, self.steps = task.progress.step, task.progress.steps
            self.label = phase_words(task.phase or START)
        return "older events are gone; following from here"

    def _ended(self, event: Event) -> None:
        self._spend(self._current, event.at)
        self.state, self.label, self.eta_s = TaskState(event.type.value), event.type.value, None
        if self.state is TaskState.SUCCEEDED:
            self.fraction = 1.0
        self.reason = event.data.get("reason")

    def phases(self) -> list[tuple[str, float]]:
        """Seconds by phase in words, without those that took no time worth a word."""
        return [
            (phase_words(name), took) for name, took in self.spent.items() if took >= 0.005 or name in PHASES
        ]


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
