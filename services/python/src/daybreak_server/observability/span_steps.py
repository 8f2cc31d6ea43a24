"""Computes the phases of an attempt. If a phase has many steps, one event covers several of them, so that a span never
has more events than the SDK keeps. Does no I/O.

The turns of a session are treated in the same way, as the steps of one phase.
"""

from __future__ import annotations

from dataclasses import dataclass, field

EVENTS_MAX = 64
"""The maximum number of step events in a phase. If a span has more than 128 events, the SDK drops the oldest."""


@dataclass(frozen=True, slots=True)
class StepEvent:
    """Steps ``first`` to ``last``, the last of which ended at ``at_ns``."""

    at_ns: int
    first: int
    last: int


@dataclass(slots=True)
class PhaseSteps:
    """A phase of the work, with the steps that ended in it."""

    name: str
    start_ns: int
    end_ns: int
    is_open: bool = False
    """Whether the phase lasts until the next one begins, and not only until its last step."""
    steps: int = 0
    """How many steps the phase has in all."""
    width: int = 1
    """How many steps an event covers now."""
    events: list[StepEvent] = field(default_factory=list)

    def step(self, step: int, steps: int, at_ns: int) -> None:
        """Add a step that ended at ``at_ns``. ``steps`` is the total, or 0 if it is unknown.

        Beyond ``EVENTS_MAX`` events, each pair of events becomes one event, which covers twice as many steps.
        """
        self.end_ns, self.steps = max(self.end_ns, at_ns), steps
        if not steps:
            return  # without a total, the step has no number
        last = self.events[-1] if self.events else None
        if last is not None and last.first <= step < last.first + self.width:
            self.events[-1] = StepEvent(at_ns, last.first, max(step, last.last))
            return
        self.events.append(StepEvent(at_ns, step, step))
        if len(self.events) > EVENTS_MAX:
            pairs = [self.events[at : at + 2] for at in range(0, len(self.events), 2)]
            self.events = [StepEvent(pair[-1].at_ns, pair[0].first, pair[-1].last) for pair in pairs]
            self.width *= 2


class Phases:
    """Divides the steps of an attempt into phases, which follow one another and do not overlap."""

    def __init__(self, start_ns: int) -> None:
        self._mark_ns = start_ns
        self._current: PhaseSteps | None = None

    def enter(self, name: str, at_ns: int) -> PhaseSteps | None:
        """Enter a phase at ``at_ns``. Returns the previous phase, or ``None`` if the same phase continues."""
        ended = self._leave(name)
        if self._current is None:
            self._current = PhaseSteps(name, self._mark_ns, at_ns)
        self._current.is_open = True
        return ended

    def step(self, name: str, step: int, steps: int, at_ns: int) -> PhaseSteps | None:
        """Add a step that ended at ``at_ns`` to a phase. Returns the previous phase if this step begins a new one."""
        ended = self._leave(name)
        if self._current is None:
            self._current = PhaseSteps(name, self._mark_ns, self._mark_ns)
        self._current.step(step, steps, at_ns)
        self._mark_ns = max(self._mark_ns, self._current.end_ns)
        return ended

    def end(self, at_ns: int) -> PhaseSteps | None:
        """End the attempt at ``at_ns``. Returns its last phase, if it had any."""
        last = self._current
        if last is not None and last.is_open:
            last.end_ns = max(last.end_ns, at_ns)
        self._current = None
        return last

    def _leave(self, name: str) -> PhaseSteps | None:
        current = self._current
        if current is None or current.name == name:
            return None
        self._mark_ns = max(self._mark_ns, current.end_ns)
        self._current = None
        return current
