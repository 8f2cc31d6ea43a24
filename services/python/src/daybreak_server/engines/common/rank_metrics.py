"""The measurements that a rank makes of its work: steps, phases, attempts, and the age of its heartbeat and lease.

The code that does the work calls the methods of :class:`RankMetrics`. So that they do not disturb the work, each call
takes only a few microseconds and never raises.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Any, TypeVar, cast

from daybreak_server.domain.tasks import Failed, Finished, Outcome, Released, Stopped
from daybreak_server.observability import catalogue
from daybreak_server.ports.metrics import Meter, NoMeter

_log = logging.getLogger(__name__)
PHASES_MAX = 20
"""How many phases can have their own series. If a workload names more, the further ones share the label ``other``."""
BROKEN = "broken"
"""The outcome of an attempt whose group could not continue."""
LOST = "lost"
"""The outcome of an attempt that has lost its task to another attempt."""
_OUTCOMES: dict[type[Outcome], str] = {
    Finished: "finished",
    Failed: "failed",
    Released: "released",
    Stopped: "stopped",
}
F = TypeVar("F", bound=Callable[..., None])


def harmless(method: F) -> F:
    """Catch the errors of a measurement, so that they do not disturb the work. Only the first one is logged."""
    failed: list[str] = []

    @functools.wraps(method)
    def measure(*args: Any, **kwargs: Any) -> None:
        try:
            method(*args, **kwargs)
        except Exception:
            if not failed:
                failed.append(method.__name__)
                _log.exception("the measurement `%s` failed", method.__name__)

    return cast("F", measure)


class RankMetrics:
    """The metrics ``daybreak_rank_…`` of one rank. Without a meter, nothing is measured."""

    def __init__(self, meter: Meter | None = None, *, pool: str = "", rank: int = 0) -> None:
        self._meter = self.meter = meter or NoMeter()
        self._pool = pool
        self._rank = rank
        self._phases: set[str] = set()
        self._phase = ""
        self._phase_began = self._stepped = time.monotonic()
        self._begin_counting()

    @harmless
    def _begin_counting(self) -> None:
        """Export all outcomes with 0 from the start, because otherwise a rate does not count the first attempt. If the
        pool scales to zero after each task, a group's first attempt is also its only one."""
        for outcome in (*_OUTCOMES.values(), BROKEN, LOST):
            self._meter.counter(catalogue.RANK_ATTEMPTS, self._pool, outcome).inc(0)

    @harmless
    def begin_attempt(self) -> None:
        """Record that an attempt begins."""
        self._phase = ""
        self._phase_began = self._stepped = time.monotonic()

    @harmless
    def step(self, phase: str) -> None:
        """Record that a step of ``phase`` is complete."""
        now, label = time.monotonic(), self._label(phase)
        self._enter(label, self._stepped)
        self._meter.histogram(catalogue.RANK_STEP, self._pool, label).observe(now - self._stepped)
        self._stepped = now

    @harmless
    def begin_phase(self, phase: str) -> None:
        """Record that a phase of the engine's own work begins, such as the upload."""
        self._stepped = time.monotonic()
        self._enter(self._label(phase), self._stepped)

    @harmless
    def end_attempt(self, outcome: Outcome | str | None) -> None:
        """Record the outcome of the attempt. ``None`` means that another attempt holds the task by now."""
        self._enter("", time.monotonic())
        known = _OUTCOMES.get(type(outcome), LOST) if not isinstance(outcome, str) else outcome  # type: ignore[arg-type]
        self._meter.counter(catalogue.RANK_ATTEMPTS, self._pool, known).inc()

    @harmless
    def loaded(self, phase: str, seconds: float) -> None:
        """Record that a phase of the group's start took ``seconds``."""
        self._meter.histogram(catalogue.RANK_LOAD, self._pool, phase).observe(seconds)

    @harmless
    def claimed(self, seconds: float) -> None:
        """Record that the time from a wake-up to its claim was ``seconds``."""
        self._meter.histogram(catalogue.RANK_CLAIM, self._pool).observe(seconds)

    @harmless
    def script_called(self, script: str, seconds: float, _succeeded: bool) -> None:
        """Record that a call of a Redis script took ``seconds``."""
        self._meter.histogram(catalogue.RANK_SCRIPT, self._pool, script).observe(seconds)

    @harmless
    def ages(self, heartbeat_s: float, *, lease_s: float | None) -> None:
        """The work last advanced ``heartbeat_s`` ago, and the lease of the running task was renewed ``lease_s`` ago."""
        self._meter.gauge(catalogue.RANK_HEARTBEAT_AGE, self._pool, str(self._rank)).set(heartbeat_s)
        if self._rank == 0:
            self._meter.gauge(catalogue.RANK_LEASE_AGE, self._pool).set(lease_s or 0.0)

    def _enter(self, phase: str, now: float) -> None:
        if phase == self._phase:
            return
        if self._phase:
            self._meter.histogram(catalogue.RANK_PHASE, self._pool, self._phase).observe(
                now - self._phase_began
            )
        self._phase, self._phase_began = phase, now

    def _label(self, phase: str) -> str:
        if phase in self._phases:
            return phase
        if len(self._phases) >= PHASES_MAX:
            return "other"
        self._phases.add(phase)
        return phase
