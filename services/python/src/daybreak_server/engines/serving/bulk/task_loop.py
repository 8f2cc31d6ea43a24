"""The thread of a leader that claims tasks, in a group that answers requests.

It runs the loop of groups that run jobs (:class:`~daybreak_server.engines.tasks.leader.LeaderLoop`), so claims, leases,
progress, checkpoints, artifacts, settlements and traces are the same code. Three things differ:

* The *workload* is a :class:`~daybreak_server.engines.serving.bulk.run.BulkRun`.
* The *state* of the group in its record belongs to the loop of requests; this loop changes only ``tasks`` and
  ``detail``. The store itself treats a group that holds a task as busy, so the group's host is not removed as idle.
* The *heartbeat* is the task's own. The loop of requests calls :meth:`TaskThread.stalled`. If the task has stalled,
  that loop breaks the group, as it does for a request that stalls.

A group that leaves, or breaks for a reason that is not the task's, releases the task. The next group continues after
the last line of the checkpoint.
"""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any, cast

from daybreak_server.domain.ids import TaskId
from daybreak_server.domain.log_context import inherited
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.tasks import Failed
from daybreak_server.engines.common.heartbeat import Heartbeat
from daybreak_server.engines.common.lease_renewer import HeldLease
from daybreak_server.engines.common.progress import PhaseEta
from daybreak_server.engines.ranks.control_group import ControlGroup
from daybreak_server.engines.ranks.rank_deps import LeaderDeps
from daybreak_server.engines.serving.bulk.metrics import BulkMetrics
from daybreak_server.engines.serving.bulk.run import BulkRun
from daybreak_server.engines.serving.bulk.source import FileLimits
from daybreak_server.engines.tasks.leader import LeaderLoop
from daybreak_server.engines.tasks.task_leases import TaskLeases
from daybreak_server.workloads.base import WorkloadSpec
from daybreak_server.workloads.bulk import BulkWorkload

_STORE_S = 10.0
"""How long a snapshot waits at most until the newest results are stored. After that, it covers only the stored ones."""


class BesideRequests:
    """The leases, for the loop of tasks. The state that this loop gives to the group is not stored.

    Implements :class:`~daybreak_server.engines.tasks.task_leases.TaskLeases`.
    """

    def __init__(self, leases: TaskLeases) -> None:
        self._leases = leases
        self._state = GroupState.IDLE

    @property
    def record(self) -> GroupRecord:
        """The group's record, with the state that the loop of tasks has given it."""
        return replace(self._leases.record, state=self._state)

    @property
    def drain(self) -> bool:
        """Whether the store has marked the group to drain."""
        return self._leases.drain

    def update(self, *, now: bool = True, **changes: Any) -> GroupRecord:
        """Change the tasks and the detail of the record. The store gets them with the next report of the load."""
        self._state = changes.get("state", self._state)
        self._leases.update(
            now=False, **{name: changes[name] for name in ("tasks", "detail") if name in changes}
        )
        return self.record

    def hold(self, held: HeldLease) -> None:
        """From now on, renew this lease too."""
        self._leases.hold(held)

    def drop(self, task: TaskId) -> None:
        """Stop renewing the lease of this task."""
        self._leases.drop(task)


class TaskThread:
    """See the module. Call ``start`` when the group is registered."""

    def __init__(
        self, spec: WorkloadSpec[Any], deps: LeaderDeps, control_group: ControlGroup, leases: TaskLeases
    ) -> None:
        config = deps.config
        self._heartbeat = Heartbeat(config.stall_s)
        self._leaving = threading.Event()
        run = BulkRun(
            cast("BulkWorkload[Any]", deps.workload),
            blobs=deps.blobs,
            places=deps.places,
            limits=FileLimits(
                max_bytes=config.bulk_max_bytes,
                max_line_bytes=config.bulk_max_line_bytes,
                max_lines=config.bulk_max_lines,
            ),
            heartbeat=self._heartbeat,
            store_s=min(_STORE_S, config.stall_s / 4),
            metrics=BulkMetrics(deps.metrics.meter, pool=config.pool),
        )
        self._loop = LeaderLoop(
            spec,
            deps=replace(
                deps,
                workload=run,
                heartbeat=self._heartbeat,
                phases=PhaseEta(),
                must_leave=self._leaving.is_set,
            ),
            control_group=control_group,
            lease_renewer=BesideRequests(leases),
            stopping=self._leaving,
        )
        self._thread = threading.Thread(target=inherited(self._loop.run), name="tasks", daemon=True)

    def start(self) -> None:
        """Begin to claim tasks."""
        self._heartbeat.beat()
        self._thread.start()

    def leave(self) -> None:
        """Claim no more, and release the task after its present step. Returns at once."""
        self._leaving.set()

    @property
    def left(self) -> bool:
        """Whether the thread has ended, and holds no task."""
        return not self._thread.is_alive()

    @property
    def broken(self) -> Failed | None:
        """Why the group is broken, or ``None``."""
        return self._loop.broken

    @property
    def lease_age_s(self) -> float | None:
        """Seconds since the lease of the task was renewed; ``None`` without a task."""
        return self._loop.lease_age_s

    def stalled(self) -> str | None:
        """What has stalled and for how long, or ``None``."""
        return self._heartbeat.stalled() if self._thread.is_alive() else None

    def strike(self, failed: Failed) -> None:
        """Mark the group broken, and settle its task, if it has one, as a strike."""
        self._leaving.set()
        self._loop.break_group(failed)

    def release(self) -> None:
        """Release the task, if the thread has one. Does not wait until the task's step ends."""
        self._leaving.set()
        if self._loop.broken is None:
            self._loop.release_task()
