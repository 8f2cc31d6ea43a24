"""A pool in plain Python: the behaviour of the Lua scripts, but without Redis. The caller sets the time.

Tests compare the scripts with this model, and the model shows all rules in one place. To stay simple, the model has no
indices. Times are milliseconds. Methods return what the scripts answer, as plain values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from daybreak_server.domain.policy import (
    GONE_MS,
    GRACE_MS,
    GROUP_FAILURES_MAX,
    LEASE_STEP_MS,
    MAX_QUEUED,
    RELEASES_MAX,
    RUN_HISTORY_WEIGHT,
    ZOMBIE_MS,
)
from daybreak_server.domain.tasks import (
    ArtifactRef,
    CheckpointRef,
    Control,
    Failed,
    Finished,
    NewTask,
    Outcome,
    Released,
    State,
)
from daybreak_server.domain.transitions import Facts, Trigger, target
from verification.queue_model.backoff import backoff_ms
from verification.queue_model.fairness import FairQueue, order
from verification.queue_model.state import ModelAttempt, ModelGroup, ModelTask, report_due, unexplained
from verification.queue_model.totals import ModelTotals


class ModelPool:
    """The reference model of one pool. Set :attr:`now` before each call."""

    def __init__(self, *, now: int, max_queued: int = MAX_QUEUED) -> None:
        self.now = now
        self.max_queued = max_queued
        self.tasks: dict[str, ModelTask] = {}
        self.groups: dict[str, ModelGroup] = {}
        self.queue = FairQueue()
        self.keys: dict[tuple[str, str], tuple[str, str]] = {}
        self.garbage: dict[str, int] = {}
        self.expiring: dict[str, int] = {}
        self.lease_clock = 0
        self.ticked: int | None = None
        self.grace = 0
        """No lease expires before the lease clock shows this time, which is set when an outage ends."""
        self.sequence = 0
        self.mean_s: float | None = None
        self.totals = ModelTotals()
        self._releasing = False

    def submit(self, new: NewTask) -> tuple[str, str | None]:
        """``new``, ``repeated`` or ``mismatch`` with a task's id, or ``full`` with ``None``."""
        if new.id in self.tasks:
            return "new", new.id
        key = (new.tenant, new.idempotency_key or "")
        if new.idempotency_key is not None and key in self.keys:
            known, body = self.keys[key]
            return ("repeated" if body == new.body_hash else "mismatch"), known
        if sum(task.state.waiting for task in self.tasks.values()) >= self.max_queued:
            return "full", None
        self.sequence += 1
        if new.idempotency_key is not None:
            self.keys[key] = (new.id, new.body_hash)
        self.queue.weights[new.tenant] = new.weight
        if new.tenant not in self.queue.shares:
            self.totals.add(new.tenant)
        start = new.start_at_ms or 0
        task = ModelTask(new, order(new.priority, self.sequence), self.now, State.QUEUED)
        if new.start_within_ms is not None:
            task.start_by = max(start, self.now) + new.start_within_ms
        self.tasks[new.id] = task
        delayed = start > self.now
        task.state = target(None, Trigger.SUBMIT, Facts(delayed=delayed))
        if delayed:
            task.due_ms = start
            self.totals.counts["submitted_delayed"] += 1
        else:
            self.queue.push(new.tenant, task.place, new.id)
        position = self.queue.position(new.tenant, task.place, new.estimate_s)
        self._emit(task, "queued", 0, {"position": position})
        return "new", new.id

    def cancel(self, task_id: str, reason: str = "requested") -> State | None:
        """The state afterwards; ``None`` if there is no such task."""
        task = self.tasks.get(task_id)
        if task is None:
            return None
        if not task.state.terminal and task.cancel_at is None:
            task.cancel_at, task.cancel_reason, task.cancel_step = self.now, reason, task.step
            self._move(task, Trigger.CANCEL)
        return task.state

    def delete(self, task_id: str) -> int:
        """1 if the task was deleted, 0 if there is no such task, or -1 if it has not ended."""
        task = self.tasks.get(task_id)
        if task is None:
            return 0
        if not task.state.terminal:
            return -1
        del self.tasks[task_id]
        self.expiring.pop(task_id)
        if task.new.idempotency_key is not None:
            del self.keys[task.new.tenant, task.new.idempotency_key]
        if not any(other.new.tenant == task.new.tenant for other in self.tasks.values()):
            self.queue.forget(task.new.tenant)
            self.totals.forget(task.new.tenant)
        return 1

    def claim(self, group: str, *, drain: bool = False, kept: Sequence[str] = (), **terms: Any) -> str | None:
        """The id of the claimed task, or ``None``. ``kept``: the tasks that the group knows it holds."""
        self._release_unknown(group, "claim_lost", kept)
        known = self.groups.get(group)
        if drain or (known is not None and known.drain):
            return None
        while self.queue.tenants():
            tenant = self.queue.tenants()[0]
            task = self.tasks[next(self.queue.waiting(tenant))]
            if task.deadline is not None and self.now >= task.deadline:
                self._expire(task)
                continue
            self._start(task, group, **terms)
            return task.new.id
        return None

    def report(
        self,
        task_id: str,
        token: str,
        *,
        lease_ms: int,
        events: tuple[tuple[str, dict[str, Any]], ...] = (),
        numbers: tuple[int, ...] = (),
        checkpoint: CheckpointRef | None = None,
        resumed_from_step: int | None = None,
        step: int | None = None,
    ) -> Control:
        """Report progress. Without events, this is a renewal of the lease."""
        task = self.tasks.get(task_id)
        if task is None or task.running is None or task.running.token != token:
            return Control.STALE
        self._move(task, Trigger.REPORT)
        task.running.lease_end = self.lease_clock + lease_ms
        task.step = task.step if step is None else step
        if resumed_from_step is not None:
            task.resumed_from_step = resumed_from_step
        for at, (kind, data) in enumerate(events):
            number = numbers[at] if numbers else 0
            if number == 0 or number > task.running.last_event_number:
                self._emit(task, kind, task.attempt, data)
                task.running.last_event_number = number or task.running.last_event_number
        if checkpoint is not None and checkpoint.key != (task.checkpoint and task.checkpoint.key):
            task.checkpoint, task.running.checkpoint_ms = checkpoint, self.steady
            self._emit(task, "checkpoint", task.attempt, {"step": checkpoint.step})
        return self.control(task)

    def settle(self, task_id: str, token: str, outcome: Outcome) -> tuple[State, bool]:
        """The state of the task afterwards, and whether the token is stale."""
        task = self.tasks.get(task_id)
        if task is None:
            return State.CANCELLED, True
        if task.running is None or task.running.token != token:
            if task.settled is not None and task.settled[0] == token:
                return task.settled[1], False
            return task.state, True
        match outcome:
            case Finished(artifacts=artifacts):
                self._move(task, Trigger.FINISH, artifacts=artifacts)
            case Failed(permanent=permanent):
                self._move(task, Trigger.PERMANENT if permanent else Trigger.ERROR, failed=outcome)
            case Released(reason=reason):
                self._move(task, Trigger.RELEASE, why=reason)
            case _:
                self._move(task, Trigger.STOPPED, why="stopped")
        task.settled = (token, task.state)
        return task.state, False

    def register(
        self, group: str, *, ttl_ms: int, fresh: bool = False, drain: bool = False, **wake: float
    ) -> bool:
        """Register or refresh a group. ``wake``: the seconds of each phase of its wake. Returns its drain mark."""
        if fresh:
            self._release_unknown(group, "restarted")
        known = self.groups.setdefault(group, ModelGroup(0))
        known.end = self.lease_clock + ttl_ms
        known.lost = False
        known.drain = known.drain or drain
        if not fresh:
            known.woke(wake, self.now)
        return known.drain

    def deregister(self, group: str, *, died: bool = False) -> None:
        """Remove a group and release its tasks. If it died, it is counted as lost, unless it was counted before."""
        self._release_unknown(group, "left")
        known = self.groups.pop(group, None)
        self.totals.counts["groups_lost"] += died and known is not None and not known.lost

    def tick(self) -> tuple[int, int, int, set[str], set[str]]:
        """The counts of due tasks, lost leases and expired tasks; ids of tasks past retention; prefixes of garbage."""
        silence = 0 if self.ticked is None else self.now - self.ticked
        graceful = silence > LEASE_STEP_MS and self.lease_clock >= self.grace
        self.lease_clock += max(0, min(silence, LEASE_STEP_MS))
        self.ticked = self.now
        if graceful:
            self.grace = self.lease_clock + GRACE_MS
        late = [task for task in self._waiting() if task.deadline is not None and task.deadline <= self.now]
        for task in sorted(late, key=lambda task: (task.deadline or 0, task.new.id)):
            self._expire(task)
        due = [t for t in self.tasks.values() if t.state is State.DELAYED and (t.due_ms or 0) <= self.now]
        for task in sorted(due, key=lambda task: (task.due_ms or 0, task.new.id)):
            self._move(task, Trigger.DUE)
        held = [(t.running.lease_end, t) for t in self.tasks.values() if t.running is not None]
        lost = [(end, task) for end, task in held if self._over(end)]
        for _, task in sorted(lost, key=lambda pair: (pair[0], pair[1].new.id)):
            self._move(task, Trigger.LEASE_LOST)
        self._reap_groups()
        expiring, garbage = (report_due(names, self.now) for names in (self.expiring, self.garbage))
        return len(due), len(lost), len(late), expiring, garbage

    @property
    def steady(self) -> int:
        """The lease clock, interpolated between ticks. Bills use it, because the wall clock may jump."""
        since = 0 if self.ticked is None else self.now - self.ticked
        return self.lease_clock + max(0, min(since, LEASE_STEP_MS))

    def control(self, task: ModelTask) -> Control:
        """The control bits of a reply."""
        bits = Control.CONTINUE
        if task.cancel_at is not None:
            bits |= Control.CANCEL
        if self._overdue(task):
            bits |= Control.EXPIRE
        group = self.groups.get(task.running.group) if task.running else None
        if group is not None and group.drain:
            bits |= Control.DRAIN
        return bits

    def _over(self, end: int) -> bool:
        return self.lease_clock >= max(end, self.grace)

    def _waiting(self) -> list[ModelTask]:
        return [task for task in self.tasks.values() if task.state.waiting]

    def _overdue(self, task: ModelTask) -> bool:
        return task.run_by is not None and self.now >= task.run_by

    def _emit(self, task: ModelTask, kind: str, attempt: int, data: dict[str, Any]) -> None:
        task.events.append((kind, attempt, data))

    def _start(self, task: ModelTask, group: str, *, ranks: int, lease_ms: int, nonce: str) -> None:
        task.state = target(task.state, Trigger.CLAIM, Facts(), history=task.history)
        task.history.append(Trigger.CLAIM)
        self.queue.remove(task.new.tenant, task.place, task.new.id)
        charge = self.queue.serve(task.new.tenant, task.new.estimate_s)
        self.totals.claimed(task.new.priority, self.now - task.queued_ms)
        task.attempt += 1
        token = f"{task.attempt}.{nonce}"
        end = self.lease_clock + lease_ms
        task.running = ModelAttempt(token, group, ranks, self.steady, charge, end)
        if task.started_ms is None:
            task.started_ms = self.now
            if task.new.run_within_ms is not None:
                task.run_by = self.now + task.new.run_within_ms
        known = self.groups.setdefault(group, ModelGroup(end))
        if known.lost:
            known.lost, known.end = False, end
        known.tasks.append(task.new.id)
        data: dict[str, Any] = {"group": group, "ranks": ranks}
        data |= known.wake_field(task.created_ms, self.now)
        if task.checkpoint is not None:
            data["resumed_from_step"] = task.checkpoint.step
        self._emit(task, "started", task.attempt, data)

    def _expire(self, task: ModelTask) -> None:
        self._move(task, Trigger.START_DEADLINE if task.started_ms is None else Trigger.RUN_DEADLINE)

    def _move(
        self,
        task: ModelTask,
        event: Trigger,
        *,
        failed: Failed | None = None,
        why: str = "",
        artifacts: tuple[ArtifactRef, ...] = (),
    ) -> None:
        """Look up the new state in the table, then apply the effects of the transition."""
        facts = Facts(
            cancel=task.cancel_at is not None,
            overdue=self._overdue(task),
            last_strike=task.strikes + 1 >= task.new.max_strikes,
            releases_exhausted=task.releases >= RELEASES_MAX
            or (event is Trigger.GROUP_FAILED and task.group_failures >= GROUP_FAILURES_MAX),
        )
        before = task.state
        after = target(before, event, facts, history=task.history)
        task.history.append(event)
        if before is State.RUNNING and after is State.RUNNING:
            return
        task.state = after
        if before is State.QUEUED:
            self.queue.remove(task.new.tenant, task.place, task.new.id)
        failure = failed or unexplained(task, event, why)
        self.totals.moved(task, before, event, now=self.now, why=why, reason=failure.reason)
        token = self._detach(task, event, ended=after.terminal, keep=after is State.SUCCEEDED)
        task.due_ms = None
        if after is State.QUEUED:
            if event is not Trigger.DUE:
                task.releases += 1
                task.group_failures += event is Trigger.GROUP_FAILED
                data = {"reason": "released", "strikes": task.strikes, "delay_s": 0, "message": why}
                self._emit(task, "retrying", task.attempt, data)
            task.queued_ms = self.now
            self.queue.push(task.new.tenant, task.place, task.new.id)
        elif after in (State.DELAYED, State.FAILED):
            self._strike(task, token, failure)
        elif after is State.SUCCEEDED:
            task.artifacts, task.error = artifacts, None
            self._end(task, {"artifacts": [artifact.name for artifact in artifacts]})
        elif after is State.CANCELLED:
            self._end(task, {"reason": task.cancel_reason})
        else:
            self._end(task, {"reason": "start_within" if task.started_ms is None else "run_within"})

    def _strike(self, task: ModelTask, token: str, failed: Failed) -> None:
        task.strikes += 1
        task.error = {"code": failed.code, "message": failed.message, "attempt": task.attempt}
        if task.state is State.FAILED:
            self._end(task, {"error": task.error})
            return
        wait = backoff_ms(task.strikes, token)
        task.due_ms = self.now + wait
        data = {
            "reason": failed.reason,
            "strikes": task.strikes,
            "delay_s": wait / 1000,
            "message": failed.message,
        }
        self._emit(task, "retrying", task.attempt, data)

    def _detach(self, task: ModelTask, event: Trigger, *, ended: bool, keep: bool) -> str:
        """If the task has an attempt, detach and bill this attempt. Returns the attempt's token."""
        attempt, task.running = task.running, None
        if attempt is None:
            return ""
        total_ms = attempt.ranks * max(0, self.steady - attempt.claimed_ms)
        if keep and task.resumed_from_step is None:
            ran = max(0, self.steady - attempt.claimed_ms) / 1000
            self.mean_s = (
                ran if self.mean_s is None else self.mean_s + RUN_HISTORY_WEIGHT * (ran - self.mean_s)
            )
        used = total_ms if ended else 0
        if not ended and attempt.checkpoint_ms is not None:
            used = min(total_ms, attempt.ranks * max(0, attempt.checkpoint_ms - attempt.claimed_ms))
        task.used_ms += used
        task.wasted_ms += total_ms - used
        self.totals.bill(task, attempt, used=used, wasted=total_ms - used)
        self.queue.correct(task.new.tenant, attempt.charge, total_ms / 1000)
        if not ended:
            task.resumed_from_step, task.step = None, 0
        group = self.groups.get(attempt.group)
        silent = event is Trigger.LEASE_LOST or self._releasing
        if group is not None and task.new.id in group.tasks:
            group.tasks.remove(task.new.id)
        if not keep:
            self.garbage[f"{task.new.id}/{attempt.token}/"] = self.now + (ZOMBIE_MS if silent else 0)
        return attempt.token

    def _end(self, task: ModelTask, data: dict[str, Any]) -> None:
        self.totals.ended(task)
        task.finished_ms = self.now
        task.expires_ms = self.now + round(task.new.retention_s * 1000)
        self.expiring[task.new.id] = task.expires_ms
        if task.checkpoint is not None:
            task.checkpoint = None
            self.garbage[f"{task.new.id}/checkpoints/"] = self.now
        self._emit(task, task.state, task.attempt, {**data, "usage": task.usage})

    def _release_unknown(self, group: str, why: str, kept: Sequence[str] = ()) -> None:
        known = self.groups.get(group)
        for held in [] if known is None else [task for task in known.tasks if task not in kept]:
            self._releasing = True  # its group did not release it, and may still be writing files
            self._move(self.tasks[held], Trigger.GROUP_FAILED, why=why)
            self._releasing = False

    def _reap_groups(self) -> None:
        for name, group in list(self.groups.items()):
            if not group.lost and self._over(group.end):
                group.lost, group.end = True, self.lease_clock + GONE_MS
                self.totals.counts["groups_lost"] += 1
            elif group.lost and group.end <= self.lease_clock:
                del self.groups[name]
