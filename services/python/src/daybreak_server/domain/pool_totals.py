"""A pool's monotonic totals, and the figures that metrics derive from them.

Redis counts only what cannot be derived: about fifty numbers and eight histograms. Most of these change rarely
(``adapters/redis/lua/_totals.lua``). Transitions that always come with a histogram's observation, such as
``queued`` → ``running``, are read from that histogram.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from daybreak_server.domain import policy
from daybreak_server.domain.tasks import Priority, State

NEW = "new"
"""In transitions, the state of a task before it is accepted."""
OTHER = "other"
"""The label of all tenants after the first ``tenants_max``, and of reasons that this version does not know. In
:attr:`PoolTotals.queue`, the label of the waiting tasks of tenants that one call of the script does not examine."""
DELETED = "deleted"
"""The label of the GPU time of tenants that were deleted. The pool's totals include this time."""
WASTES = {"cancel": State.CANCELLED, "expiry": State.EXPIRED, "failure": State.FAILED}
"""Causes of wasted GPU time, each with the final state of the tasks to which it applies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistogramTotals:
    """A histogram: counts by bucket (the last one has no bound), and the sum of all observations."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        """How many observations there were."""
        return sum(self.counts)


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantTotals:
    """A tenant's billed GPU-seconds, and its waiting tasks."""

    used_gpu_seconds: float = 0.0
    wasted_gpu_seconds: float = 0.0
    queued: int = 0
    weight: float | None = None
    """``None`` for :data:`OTHER`, and for tenants of which no task waits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueDepth:
    """The due tasks of one priority that wait for a group."""

    tasks: int = 0
    oldest_wait_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolTotals:
    """A pool's totals since its first task, and the depths of its queue now."""

    name: str
    submitted: int = 0
    raw: Mapping[str, int] = field(default_factory=dict)
    """The totals as Redis has them, by field."""
    tenants: Mapping[str, TenantTotals] = field(default_factory=dict)
    queue: Mapping[str, QueueDepth] = field(default_factory=dict)
    """By priority: ``high``, ``normal``, ``low``; ``other`` if more tenants wait than one call examines."""
    fairness_error_s: float = 0.0
    dead_letters: int = 0

    def total(self, name: str) -> int:
        """One total; 0 if nothing was counted."""
        return self.raw.get(name, 0)

    def waits(self, priority: Priority) -> HistogramTotals:
        """The time from entering the queue to the claim, in seconds."""
        name = f"wait:{int(priority)}"
        return self.histogram(name, policy.WAIT_BUCKETS_MS, unit=1000)

    @property
    def runs(self) -> HistogramTotals:
        """The run times of attempts that succeeded, in seconds."""
        return self.histogram("run", policy.RUN_BUCKETS_MS, unit=1000)

    @property
    def cancels(self) -> HistogramTotals:
        """The time from the cancel of a running task until its group had stopped, in seconds."""
        return self.histogram("cancel", policy.CANCEL_BUCKETS_MS, unit=1000)

    @property
    def cancel_steps(self) -> HistogramTotals:
        """How many steps cancelled tasks still did until they stopped."""
        return self.histogram("cancel_steps", policy.CANCEL_STEP_BUCKETS, unit=1)

    @property
    def claims(self) -> int:
        """The number of claims."""
        return sum(self.waits(priority).count for priority in Priority)

    @property
    def releases(self) -> dict[str, int]:
        """Tasks returned to the queue without a strike, by reason."""
        return {reason: self.total(f"releases:{reason}") for reason in policy.RELEASE_REASONS}

    @property
    def retries(self) -> dict[str, int]:
        """Attempts after which the task waited for another attempt, by reason."""
        counts = {reason: self.total(f"retries:{reason}") for reason in policy.RETRY_REASONS}
        counts["released"] += sum(self.releases.values())
        return counts

    @property
    def strikes(self) -> dict[str, int]:
        """Strikes by reason."""
        return {reason: self.total(f"strikes:{reason}") for reason in policy.RETRY_REASONS}

    @property
    def transitions(self) -> dict[tuple[str, str], int]:
        """Changes of state, by the states before and after."""
        delayed = self.total("submitted_delayed")
        moved: dict[tuple[str, str], int] = {
            (NEW, State.QUEUED): self.submitted - delayed,
            (NEW, State.DELAYED): delayed,
            (State.DELAYED, State.QUEUED): self.total("promoted"),
            (State.QUEUED, State.RUNNING): self.claims,
            (State.RUNNING, State.QUEUED): sum(self.releases.values()),
            (State.RUNNING, State.DELAYED): sum(
                self.total(f"retries:{reason}") for reason in policy.RETRY_REASONS
            ),
            (State.RUNNING, State.SUCCEEDED): self.runs.count,
        }
        for state in (State.FAILED, State.CANCELLED, State.EXPIRED):
            for before in (State.QUEUED, State.DELAYED, State.RUNNING):
                if state is not State.FAILED or before is State.RUNNING:
                    moved[before, state] = self.total(f"ended:{state}:{before}")
        return moved

    @property
    def ended(self) -> dict[State, int]:
        """Ended tasks by their final state."""
        moved = self.transitions
        return {
            state: sum(count for (_, after), count in moved.items() if after == state)
            for state in State
            if state.terminal
        }

    @property
    def wasted_gpu_seconds(self) -> dict[str, float]:
        """GPU-seconds without a result, by cause."""
        wasted = {cause: self.total(f"wasted:{cause}") / 1000 for cause in WASTES}
        return {
            "retry": self.total("wasted_ms") / 1000,
            **wasted,
            "cold_start": self.total("cold_ms") / 1000,
        }

    @property
    def used_gpu_seconds(self) -> float:
        """GPU-seconds that led to a result. These are the GPU-seconds that groups spent on requests while they did not
        drain, and the GPU-seconds billed for tasks, except for tasks that ended without a result.

        If an attempt does not end its task, the GPU-seconds up to its last checkpoint are left out until the task ends:
        only then is it known whether they had a result.
        """
        without_result = sum(self.total(f"wasted:{cause}") for cause in WASTES) + self.total("pending_ms")
        return (self.total("used_ms") + self.total("serving_ms") - without_result) / 1000

    @property
    def idle_gpu_seconds(self) -> float:
        """GPU-seconds in which started groups had no task and no request. GPU-seconds of groups that serve sessions
        count too, and so do those in which a draining group answers requests."""
        return self.total("idle_ms") / 1000

    def histogram(self, name: str, bounds: Sequence[int], *, unit: int) -> HistogramTotals:
        """The histogram that the scripts count as ``name``. ``unit``: the divisor of its bounds and its sum."""
        return HistogramTotals(
            bounds=tuple(bound / unit for bound in bounds),
            counts=tuple(self.total(f"{name}:{at}") for at in range(1, len(bounds) + 2)),
            sum=self.total(f"{name}:sum") / unit,
        )
