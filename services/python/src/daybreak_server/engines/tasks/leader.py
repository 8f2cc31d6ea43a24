"""The leader's loop: claim a task, run it, settle it, repeat. Only rank 0 claims tasks and stores their results.

A settlement may claim the next task in the same call, so a busy group pays only one round trip between two tasks. The
loop ends in one of two ways:

* The group was asked to leave. Its task, if it had one, has ended or was released at its next step. ``run`` returns
  ``True``.
* The group is broken: the ranks disagree, one is lost, the work stalled, or the loop itself failed. The task is
  settled as a strike and ``run`` returns ``False``; the process ends and the whole group restarts.

The work thread and the lease renewer's thread may both find the group broken, and both call
:meth:`LeaderLoop.break_group`. The first call settles the task. The second one only waits for the first, because the
process may end after either.

Before its first task, and after a task whose artifacts could not be stored, the loop probes the blob store.
While the blob store refuses writes, the group claims no task, because the task would do all its work and then
end with a strike.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from daybreak_server.domain import log_context, private_inputs
from daybreak_server.domain.causes import Cause, Reason
from daybreak_server.domain.ids import attempt_of
from daybreak_server.domain.pools import GroupState, WakePhase
from daybreak_server.domain.task_changes import ChangeKind
from daybreak_server.domain.tasks import (
    Claim,
    Control,
    Failed,
    Lease,
    Outcome,
    Released,
    Settled,
    State,
    Stopped,
)
from daybreak_server.domain.text import storable
from daybreak_server.engines.common.artifacts import BLOB_STALL_S
from daybreak_server.engines.common.error_causes import describe
from daybreak_server.engines.common.errors import GroupBrokenError
from daybreak_server.engines.common.lease_renewer import IDLE_STATE, HeldLease
from daybreak_server.engines.common.rank_metrics import BROKEN
from daybreak_server.engines.common.scratch_dirs import ScratchDirs
from daybreak_server.engines.ranks.consensus import GroupDecision, report_of
from daybreak_server.engines.ranks.control_group import ControlGroup
from daybreak_server.engines.ranks.rank_deps import LeaderDeps
from daybreak_server.engines.tasks.attempt import Attempt
from daybreak_server.engines.tasks.task_leases import TaskLeases
from daybreak_server.observability.task_log import log_task
from daybreak_server.ports.blobs import BlobError, BlobRefusedError
from daybreak_server.ports.store_errors import StoreError, StoreUnavailableError
from daybreak_server.ports.tracing import NO_ATTEMPT_TRACE, AttemptTrace
from daybreak_server.workloads.base import WorkloadSpec
from daybreak_server.workloads.inputs import context_of, restored

_log = logging.getLogger(__name__)
_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)
PROBE_RETRY_S = 5.0
"""Pause before the next probe of a blob store that refused writes."""


class LeaderLoop:
    """Serves a pool until the group is asked to leave or breaks."""

    def __init__(
        self,
        spec: WorkloadSpec[Any],
        *,
        deps: LeaderDeps,
        control_group: ControlGroup,
        lease_renewer: TaskLeases,
        stopping: threading.Event,
    ) -> None:
        self._spec = spec
        self._deps = deps
        self._control_group = control_group
        self._lease_renewer = lease_renewer
        self._stopping = stopping
        self._breaking = threading.Lock()
        self._held: HeldLease | None = None
        self._trace: AttemptTrace = NO_ATTEMPT_TRACE
        """The trace of the attempt that runs, or of the last one."""
        self._claim_sent_ns = self._ready_ns = time.time_ns()
        """When the last claim was sent, and when this group became ready."""
        self._broken: Failed | None = None
        self._pinged_at = time.monotonic()
        self._must_probe = True
        """Whether the blob store must be probed before the next claim."""
        self._next_probe_at = 0.0
        self._scratch_dirs = ScratchDirs(deps.config.scratch)

    @property
    def lease_age_s(self) -> float | None:
        """Seconds since the lease of the running task was renewed; ``None`` while no task runs."""
        held = self._held
        return None if held is None else held.age_s

    @property
    def broken(self) -> Failed | None:
        """Why the group is broken, or ``None``."""
        return self._broken

    def run(self) -> bool:
        """Serve. Returns ``True`` if the group was asked to leave and holds no task, ``False`` if it is broken."""
        claim: Claim | None = None
        outage = 0
        while not (self._broken or (claim is None and self._must_leave())):
            try:
                if claim is None:
                    claim = self._next_claim()
                outage = 0
                if claim is not None:
                    claim = self._attempt(claim)
                elif time.monotonic() - self._pinged_at >= self._deps.config.ping_s:
                    self._control_group.order("ping")
                    self._pinged_at = time.monotonic()
            except GroupBrokenError as exc:
                self.break_group(Failed(code="rank_lost", message=str(exc)))
            except StoreError as exc:
                if outage == 0:
                    _log.warning("cannot claim a task; retrying: %s", exc)
                self._stopping.wait(_BACKOFF_S[min(outage, len(_BACKOFF_S) - 1)])
                outage += 1
            except BaseException as exc:
                # A bug in Daybreak. If the group left normally, its task would be released, which would hide the bug.
                _log.exception("the group cannot continue")
                self.break_group(Failed(code="internal", message=describe(exc)))
        self._scratch_dirs.close()
        return self._broken is None

    def _must_leave(self) -> bool:
        return self._stopping.is_set() or self._control_group.wants_to_leave()

    def _next_claim(self) -> Claim | None:
        config, lease_renewer = self._deps.config, self._lease_renewer
        self._deps.heartbeat.beat("idle", limit_s=max(60.0, config.stall_s))
        if self._must_probe and not self._probe():
            self._stopping.wait(config.idle_s)
            return None
        state, before = IDLE_STATE[lease_renewer.drain], lease_renewer.record
        if before.state is not state or before.tasks:
            # `settle()` has already marked a busy group idle.
            store_knows = before.state is GroupState.BUSY and state is GroupState.IDLE
            lease_renewer.update(now=not store_knows, state=state, tasks=())
        if lease_renewer.drain:
            self._stopping.wait(config.idle_s)  # the drain mark may be removed again
            return None
        self._claim_sent_ns = time.time_ns()
        return self._deps.queue.claim(lease_renewer.record, wait_s=config.idle_s)

    def _probe(self) -> bool:
        """Probe the blob store, and return whether the group may claim tasks.

        A blob store that refuses writes is reported as the pool's problem, and tasks wait. A blob store that cannot be
        reached is no reason to wait here, because each upload retries by itself.
        """
        if time.monotonic() < self._next_probe_at:
            return False
        try:
            with self._deps.heartbeat.during("files", BLOB_STALL_S):
                self._deps.blobs.probe()
        except BlobRefusedError as exc:
            _log.error("the blob store refuses writes, so this group takes no task: %s", exc)
            self._lease_renewer.update(
                state=GroupState.LOADING, phase=WakePhase.WARM_UP, tasks=(), detail=str(exc)[:300]
            )
            message = f"Artifacts cannot be stored (S3 or the folder refuses them): {exc}"
            self._deps.queue.report_failure(Cause(reason=Reason.ARTIFACTS_REFUSED, message=message))
            self._next_probe_at = time.monotonic() + PROBE_RETRY_S
            return False
        except BlobError as exc:
            _log.warning("the blob store cannot be probed; taking tasks anyway: %s", exc)
        self._must_probe = False
        if self._lease_renewer.record.detail:
            self._lease_renewer.update(now=False, phase=WakePhase.READY, detail="")
        return True

    def _attempt(self, claim: Claim) -> Claim | None:
        """Run one claim and settle it. Returns the next claim, if the settlement made one."""
        trace_id = claim.trace_context.trace_id if claim.trace_context is not None else ""
        task = claim.lease.task
        with (
            private_inputs.running(claim.input_json, task),
            log_context.bound(task=task, attempt=claim.attempt, trace_id=trace_id),
        ):
            self._log_change(claim.lease, ChangeKind.STARTED)
            return self._run_and_settle(claim)

    def _log_change(self, lease: Lease, kind: ChangeKind) -> None:
        """Log a start or a success. The store's replies name all other changes, and the store's adapter logs these."""
        log_task(kind, lease.task, attempt=attempt_of(lease.token), group=lease.group)

    def _run_and_settle(self, claim: Claim) -> Claim | None:
        config, lease_renewer = self._deps.config, self._lease_renewer
        held = HeldLease(claim.lease, claim.control)
        self._held = held
        state = GroupState.DRAINING if lease_renewer.drain else GroupState.BUSY
        lease_renewer.update(now=False, state=state, tasks=(claim.lease.task,))
        lease_renewer.hold(held)
        self._deps.heartbeat.beat("task", limit_s=config.stall_s)
        trace = self._trace = self._deps.tracing.attempt(
            claim,
            lease_renewer.record,
            claim_sent_ns=self._claim_sent_ns,
            ready_ns=self._ready_ns,
            wake=lease_renewer.record.wake,
        )
        attempt = Attempt(claim, held, deps=self._deps, control_group=self._control_group, trace=trace)
        try:
            decision, outcome = self._run_attempt(attempt, claim)
        except GroupBrokenError as exc:
            self.break_group(attempt.failure_cause(exc))
            return None
        if decision is GroupDecision.BREAK:
            self.break_group(attempt.failure())
            return None
        self._deps.metrics.end_attempt(outcome)
        trace.ended(outcome)
        if outcome is None:
            lease_renewer.drop(claim.lease.task)
            self._held = None
            attempt.discard()
            return None
        self._must_probe |= isinstance(outcome, Failed) and outcome.code == "artifact_store"
        settled = self._settle(held, outcome)
        if settled is None:
            # A call whose reply was lost may have published the artifacts, so only a tick may remove them.
            return None
        if settled.stale or settled.state is not State.SUCCEEDED:
            attempt.discard()
        return settled.next

    def _run_attempt(self, attempt: Attempt, claim: Claim) -> tuple[GroupDecision, Outcome | None]:
        if claim.control & (Control.CANCEL | Control.EXPIRE):
            return GroupDecision.STOP, Stopped()
        if self._must_leave():
            return GroupDecision.RELEASE, Released(reason="drain")
        try:
            params = restored(self._spec, claim.input_json, context_of(self._spec, self._deps.config.options))
        except ValueError as exc:  # pydantic's ValidationError is one
            return GroupDecision.FAIL, Failed(code="invalid_input", message=storable(exc), permanent=True)
        except BaseException as exc:  # validators are the workload's code, which may raise anything
            report = report_of(exc, point=0)
            return GroupDecision.FAIL, Failed(
                code=report.code, message=report.message, permanent=report.permanent
            )
        try:
            with self._scratch_dirs.scratch_dir() as workdir:
                return attempt.run(params, workdir)
        except OSError as exc:
            report = report_of(exc, point=0)
            return GroupDecision.FAIL, Failed(code="no_scratch_space", message=report.message)

    def _settle(self, held: HeldLease, outcome: Outcome) -> Settled | None:
        """Settle, and retry until the store replies. While the store is down, no lease ends. A repeated call changes
        nothing.

        Returns ``None`` if the outcome is unknown: the store refuses the call, the group broke, or the group must leave
        and gets no reply for ``lease_s``.
        """
        lease_renewer, tries = self._lease_renewer, 0
        leaving_since: float | None = None
        while self._broken is None:
            self._deps.heartbeat.beat("settle")
            if self._must_leave() and leaving_since is None:
                leaving_since = time.monotonic()
            stay = leaving_since is None and not lease_renewer.drain and not held.control & Control.DRAIN
            stay = stay and not self._must_probe
            settled: Settled | None
            self._claim_sent_ns = time.time_ns()
            try:
                settled = self._deps.queue.settle(
                    held.lease, outcome, claim_next=lease_renewer.record if stay else None
                )
            except StoreUnavailableError as exc:
                if tries == 0:
                    _log.warning("%s cannot be settled yet; retrying: %s", held.lease.task, exc)
                if leaving_since is not None and time.monotonic() - leaving_since > self._deps.config.lease_s:
                    return None
                time.sleep(_BACKOFF_S[min(tries, len(_BACKOFF_S) - 1)])
                tries += 1
                continue
            except StoreError as exc:
                # A retry cannot help, and a renewed lease would keep the task from other groups.
                _log.error("%s cannot be settled; its lease runs out: %s", held.lease.task, exc)
                settled = None
            lease_renewer.drop(held.lease.task)
            self._held = None
            state = settled.state if settled is not None and not settled.stale else None
            self._trace.settled(state, began_ns=self._claim_sent_ns)
            if settled is not None and settled.state is State.SUCCEEDED and (tries or not settled.repeated):
                self._log_change(held.lease, ChangeKind.SUCCEEDED)
            if settled is not None and settled.stale:
                _log.warning("%s already belonged to another attempt when it ended here", held.lease.task)
            return settled
        return None

    def break_group(self, failed: Failed) -> None:
        """Mark the group broken and settle its task as a strike. Another call waits until the first has done so."""
        with self._breaking:
            if self._broken is not None:
                return
            self._broken = failed
            _log.error("the group is broken: %s: %s", failed.code, failed.message)
            held = self._held
            if held is not None:
                self._deps.metrics.end_attempt(BROKEN)
                self._trace.ended(failed)
                self._strike(held.lease, failed)

    def _strike(self, lease: Lease, failed: Failed) -> None:
        until, began_ns = time.monotonic() + self._deps.config.lease_s, time.time_ns()
        while True:
            try:
                settled = self._deps.queue.settle(lease, failed)
                self._trace.settled(None if settled.stale else settled.state, began_ns=began_ns)
                return
            except StoreError as exc:
                if time.monotonic() > until:
                    _log.warning("%s cannot be settled; its lease runs out: %s", lease.task, exc)
                    return
                time.sleep(0.5)

    def release_task(self) -> None:
        """Release the task while its step still runs, because the group must end now."""
        held = self._held
        if held is None:
            return
        self._trace.ended(Released(reason="drain"))
        try:
            self._deps.queue.settle(held.lease, Released(reason="drain"))
        except StoreError as exc:
            _log.warning("%s cannot be released; its lease runs out: %s", held.lease.task, exc)
