"""Decides which progress events are due, and estimates the remaining time of a task. The code is pure, except for
a clock that is passed in.

The store keeps about the last thousand events of a task. Fast steps would produce a thousand events within seconds,
and the events that explain the task, such as its start and its log lines, would be deleted. So after ``MANY`` progress
events of an attempt, each event covers all steps of about ``SPACING_S`` seconds. This time doubles after each further
``DOUBLING`` events, so ten hours of steps produce fewer than a thousand progress events. If a new phase begins or an
event of another type occurs, the waiting events are written at once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from daybreak_server.domain.tasks import EventDraft
from daybreak_server.workloads.base import Step

MAX_PENDING = 16
"""The most progress events in one write. If more of them wait, the two oldest are merged into one event."""
MANY, SPACING_S, DOUBLING = 200, 2.0, 100
"""After ``MANY`` progress events of an attempt, each further event covers ``SPACING_S`` seconds. This time doubles
after each further ``DOUBLING`` events."""
MAX_NOTES = 200
"""Events wait for a write, for example while the store cannot be reached. If more than ``MAX_PENDING`` + ``MAX_NOTES``
events wait when an event of a type other than progress is added, the oldest event of such a type is dropped."""
_SMOOTHING = 0.3
_MIN_GAIN = 1e-9
"""A pace is computed only if the fraction has grown by more than this. With a smaller gain, the pace could overflow."""


class PhaseEta:
    """Learns how long each phase takes per unit of ``fraction``, and remembers it from task to task."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._learnt: dict[str, tuple[float, float]] = {}
        """phase → (seconds per unit of fraction, highest fraction that the phase has reached)"""
        self._order: list[str] = []
        self._seen: list[str] = []
        self._measured: set[str] = set()
        """Phases whose pace is known from this attempt."""
        self._at = clock()
        self._fraction = 0.0

    def start(self) -> None:
        """Start an attempt."""
        if self._seen:
            self._order = self._seen
        self._seen = []
        self._measured.clear()
        self._at, self._fraction = self._clock(), 0.0

    def rebase(self) -> None:
        """Do not measure the next step. Its fraction includes the work before the snapshot from which the attempt has
        resumed."""
        self._fraction = math.inf

    def step(self, phase: str, fraction: float) -> float | None:
        """Record a completed step, and return the seconds that remain; ``None`` while that is unknown."""
        now = self._clock()
        gained, took = fraction - self._fraction, now - self._at  # after a rebase: nothing gained
        if not self._seen or self._seen[-1] != phase:
            self._seen.append(phase)
        if gained > _MIN_GAIN:
            rate = took / gained
            old = self._learnt.get(phase)
            # This attempt's own pace replaces an older one: the previous task may have had another size.
            smooth = old[0] + _SMOOTHING * (rate - old[0]) if old and phase in self._measured else rate
            self._measured.add(phase)
            self._learnt[phase] = (smooth, max(fraction, old[1] if old else 0.0))
        self._at, self._fraction = now, fraction
        return self._remaining(phase, fraction)

    def _remaining(self, phase: str, fraction: float) -> float | None:
        here = self._learnt.get(phase)
        if here is None:
            return None
        later = self._order[self._order.index(phase) + 1 :] if phase in self._order else []
        remaining_s, at = 0.0, fraction
        for name, (rate, end) in [
            (phase, here),
            *((other, self._learnt[other]) for other in later if other in self._learnt),
        ]:
            until = 1.0 if not later and name == phase else max(at, end)
            remaining_s, at = remaining_s + rate * (until - at), until
        return remaining_s + here[0] * (1.0 - at)


@dataclass
class EventBuffer:
    """Events that are still to be written, in order. They are kept until a write succeeds, within bounds."""

    _events: list[EventDraft] = field(default_factory=list)
    _fields: dict[str, str | int | float] = field(default_factory=dict)
    _number: int = 0
    """The number of the newest event. If a write is repeated because its reply was lost, the store skips the events
    whose numbers it has."""
    _written: int = 0
    """How many progress events have been written."""
    _written_at: float = -math.inf
    _phase: str = ""
    """The phase of the last progress event that was written."""
    _taken: int = 0
    clock: Callable[[], float] = time.monotonic

    def step(self, step: Step, *, fraction: float, eta_s: float | None) -> None:
        """Add a progress event for this step. Its values are also written to the task's record."""
        data: dict[str, str | int | float] = {"phase": step.phase, "fraction": round(fraction, 6)}
        if step.steps:
            data["step"], data["steps"] = step.step, step.steps
        if eta_s is not None:
            data["eta_s"] = round(eta_s, 3)
        self._fields.update(data)
        self._append(EventDraft(type="progress", data=data))
        if self._sparse and len(self._events) > 1 and _same_phase(self._events[-2], self._events[-1]):
            self._merge(len(self._events) - 2, len(self._events) - 1)
        steps = [at for at, event in enumerate(self._events) if event.type == "progress"]
        if len(steps) > MAX_PENDING:
            self._merge(*steps[:2])

    def note(self, draft: EventDraft) -> None:
        """Add an event of a type other than progress."""
        self._append(draft)
        if len(self._events) > MAX_PENDING + MAX_NOTES:
            del self._events[next(at for at, event in enumerate(self._events) if event.type != "progress")]

    @property
    def _sparse(self) -> bool:
        """Whether so many progress events have been written that further ones are spaced out."""
        return self._written >= MANY

    @property
    def _spacing_s(self) -> float:
        return SPACING_S * 2.0 ** ((self._written - MANY) // DOUBLING)

    def _merge(self, old: int, new: int) -> None:
        self._events[new] = _merged(self._events[old], self._events[new])
        del self._events[old]

    def _is_due(self) -> bool:
        """Whether the events are written now, rather than merged with later ones."""
        if not self._sparse or len(self._events) != 1 or self.has_notes:
            return True
        return (
            self._events[0].data["phase"] != self._phase or self.clock() - self._written_at >= self._spacing_s
        )

    def _append(self, draft: EventDraft) -> None:
        self._number += 1
        self._events.append(replace(draft, number=self._number))

    @property
    def has_notes(self) -> bool:
        """Whether events of types other than progress wait to be written."""
        return any(event.type != "progress" for event in self._events)

    def set(self, **fields: str | int | float) -> None:
        """Write these fields of the task's record with the next events."""
        self._fields.update(fields)

    def take(self, *, last: bool = False) -> tuple[list[EventDraft], Mapping[str, str | int | float]]:
        """Return the events and fields to write now. ``last``: nothing follows, so nothing is held back."""
        self._taken = len(self._events) if last or self._is_due() else 0
        return self._events[: self._taken], dict(self._fields)

    def clear(self) -> None:
        """Remove what ``take`` returned, because it has been written."""
        for event in self._events[: self._taken]:
            if event.type == "progress":
                self._written += 1
                self._written_at, self._phase = self.clock(), str(event.data["phase"])
        del self._events[: self._taken]
        self._fields.clear()

    def __bool__(self) -> bool:
        return bool(self._events or self._fields)


def _same_phase(old: EventDraft, new: EventDraft) -> bool:
    return old.type == new.type == "progress" and old.data["phase"] == new.data["phase"]


def _merged(old: EventDraft, new: EventDraft) -> EventDraft:
    """Return a progress event that covers both events; ``from_step`` is its first step."""
    if "step" not in new.data:
        return new
    since = old.data.get("from_step", old.data.get("step", new.data["step"]))
    return replace(new, data={**new.data, "from_step": since})
