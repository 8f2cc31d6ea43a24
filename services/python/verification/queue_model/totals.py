"""The pool's totals in the reference model: every change of state is counted as it happens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from daybreak_server.domain import policy
from daybreak_server.domain.pool_totals import DELETED, OTHER
from daybreak_server.domain.tasks import State
from daybreak_server.domain.transitions import Trigger
from verification.queue_model.state import ModelAttempt, ModelTask

_WASTE = {State.CANCELLED: "cancel", State.EXPIRED: "expiry", State.FAILED: "failure"}


class ModelTotals:
    """``counts`` has each total under the name of its field in Redis. ``billed`` has two numbers for each tenant: the
    GPU-milliseconds that were used, and how many of them were wasted."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.billed: dict[str, list[int]] = {}

    def observe(self, name: str, bounds: Sequence[int], value: int) -> None:
        """Add an observation to a histogram."""
        place = next((at for at, bound in enumerate(bounds, 1) if value <= bound), len(bounds) + 1)
        self.counts[f"{name}:{place}"] += 1
        self.counts[f"{name}:sum"] += value

    def claimed(self, priority: int, waited_ms: int) -> None:
        """A task was claimed."""
        self.observe(f"wait:{priority}", policy.WAIT_BUCKETS_MS, max(0, waited_ms))

    def moved(
        self, task: ModelTask, before: State, event: Trigger, *, now: int, why: str, reason: str
    ) -> None:
        """The state of a task has changed from ``before`` to ``task.state``.

        :param why: Why the task was released, if it was.
        :param reason: Why the task got a strike, if it did.
        """
        after = task.state
        self.counts["leases_lost"] += event is Trigger.LEASE_LOST
        if before is State.DELAYED and after is State.QUEUED:
            self.counts["promoted"] += 1
        if before is State.RUNNING and after is State.QUEUED:
            self.counts[f"releases:{why if why in policy.RELEASE_REASONS else OTHER}"] += 1
        if after in (State.DELAYED, State.FAILED):
            reason = reason if reason in policy.RETRY_REASONS else "error"
            self.counts[f"strikes:{reason}"] += 1
            self.counts[f"retries:{reason}"] += after is State.DELAYED
        if after.terminal and after is not State.SUCCEEDED:
            self.counts[f"ended:{after}:{before}"] += 1
        if before is State.RUNNING and after is State.CANCELLED and task.cancel_at is not None:
            self.observe("cancel", policy.CANCEL_BUCKETS_MS, max(0, now - task.cancel_at))
            self.observe("cancel_steps", policy.CANCEL_STEP_BUCKETS, max(0, task.step - task.cancel_step))

    def bill(self, task: ModelTask, attempt: ModelAttempt, *, used: int, wasted: int) -> None:
        """An attempt has ended, and the task already has its next state. Count the GPU time of the attempt."""
        if task.state is State.SUCCEEDED:
            self.observe("run", policy.RUN_BUCKETS_MS, used // attempt.ranks)
        if used or wasted:
            self.add(task.new.tenant)
            self.billed[task.new.tenant][0] += used
            self.billed[task.new.tenant][1] += wasted

    def ended(self, task: ModelTask) -> None:
        """A task has ended. If it did not succeed, all GPU time that its attempts used is wasted."""
        if task.state in _WASTE:
            self.counts[f"wasted:{_WASTE[task.state]}"] += task.used_ms

    def add(self, tenant: str) -> None:
        """Give the tenant its own totals, if it has none."""
        self.billed.setdefault(tenant, [0, 0])

    def forget(self, tenant: str) -> None:
        """A tenant has no task left. Add its GPU time to that of the deleted tenants."""
        for kind, ms in zip(("used_ms", "wasted_ms"), self.billed.pop(tenant, [0, 0]), strict=True):
            self.counts[f"{DELETED}:{kind}"] += ms
