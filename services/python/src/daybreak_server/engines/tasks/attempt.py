"""One attempt at a task on the leader, from the claim to the outcome that the leader settles.

1. The leader fetches the task's checkpoint, if it has one, and orders all ranks to run the task from the same bytes.
2. At each point of agreement, such as each ``yield`` of the workload, it collects the reports of all ranks
   (:meth:`Attempt._agree`). It writes progress to the store, at most once per ``progress_s``, and also when a
   checkpoint has just been stored. From the reports and the control bits of the store's latest reply, it decides what
   all ranks do next, and tells them. So a request to stop takes effect at the end of a step, at most ``progress_s``
   plus one step after the request.
3. When a checkpoint is due, the leader takes a snapshot at a point of agreement and stores it in the background. The
   next report, which is fenced like any other, makes the task's record point at the new checkpoint.
4. After ``FINISH`` the leader uploads the artifacts, and only then returns ``Finished``, so no client sees a file that
   does not exist yet. Before it announces ``RELEASE`` at a step with a snapshot, it stores a last checkpoint, so that
   the next attempt loses no work. If that takes too long, the next attempt continues from an older checkpoint.

An outage of the store does not stop an attempt. Events wait in a bounded buffer, and reports are retried at
intervals that grow to ``_MAX_SILENCE_S``.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from daybreak_server.domain.tasks import (
    ArtifactRef,
    CheckpointRef,
    Claim,
    Control,
    EventDraft,
    Failed,
    Finished,
    Outcome,
    Released,
    Stopped,
)
from daybreak_server.engines.common.artifacts import (
    BLOB_STALL_S,
    Checkpoints,
    discard,
    fetch,
    upload_artifact,
)
from daybreak_server.engines.common.context import LeaderContext
from daybreak_server.engines.common.lease_renewer import HeldLease
from daybreak_server.engines.common.outputs import checked_step
from daybreak_server.engines.common.progress import EventBuffer
from daybreak_server.engines.ranks.consensus import GroupDecision, RankReport, decide, worst
from daybreak_server.engines.ranks.control_group import ControlGroup
from daybreak_server.engines.ranks.lockstep import begin, drive
from daybreak_server.engines.ranks.rank_deps import LeaderDeps
from daybreak_server.ports.blobs import BlobError
from daybreak_server.ports.store_errors import StoreError
from daybreak_server.ports.tracing import NO_ATTEMPT_TRACE, AttemptTrace
from daybreak_server.workloads.base import RetryableError, Step, Task

_log = logging.getLogger(__name__)
_MAX_SILENCE_S = 5.0
_REPORT_RETRY_S = 0.25


class EventReporter:
    """Writes events to the store. :meth:`due` allows one write per ``progress_s``. Replies carry the control bits."""

    def __init__(self, deps: LeaderDeps, held: HeldLease, trace: AttemptTrace = NO_ATTEMPT_TRACE) -> None:
        self._deps = deps
        self._held = held
        self._trace = trace
        self.event_buffer = EventBuffer()
        self._last_at = time.monotonic()
        self._pause_s = deps.config.progress_s
        self._fraction = 0.0

    def due(self) -> bool:
        """Return whether the next write may happen now."""
        return time.monotonic() - self._last_at >= self._pause_s

    def step(self, step: Step) -> None:
        """Add a step that all ranks have completed."""
        self._trace.step(step.phase, step.step, step.steps)
        self._add(step)

    def phase(self, phase: str) -> None:
        """Add a phase of the engine's own work, such as the upload."""
        self._deps.metrics.begin_phase(phase)
        self._trace.phase(phase)
        self._add(Step(phase=phase, fraction=self._fraction))

    def _add(self, step: Step) -> None:
        """Add a progress event. The fraction never falls, whatever the workload reports."""
        self._fraction = max(self._fraction, min(1.0, step.fraction))
        eta_s = self._deps.phases.step(step.phase, self._fraction)
        self.event_buffer.step(step, fraction=self._fraction, eta_s=eta_s)

    def write(
        self,
        *,
        checkpoint: CheckpointRef | None = None,
        preview: tuple[bytes, int, str] | None = None,
        last: bool = False,
    ) -> bool:
        """Write now, and return whether the write succeeded. If it failed, a later write includes the same events.

        :param last: Whether the work is done. If it is, no event waits for later steps.
        """
        deps, lease, sent_at = self._deps, self._held.lease, time.monotonic()
        try:
            if preview is not None:
                image, step, content_type = preview
                deps.queue.preview(lease, image, content_type=content_type, ttl_s=deps.config.preview_ttl_s)
                data = {"name": "preview", "step": step, "content_type": content_type}
                self.event_buffer.note(EventDraft(type="preview", data=data))
            events, fields = self.event_buffer.take(last=last)
            control = deps.queue.report(lease, events, checkpoint=checkpoint, fields=fields)
        except StoreError as exc:
            _log.debug("the report of %s waits: %s", lease.task, exc)
            self._last_at = time.monotonic()
            # The work waits for each try, which may take the store's whole timeout. So tries must be rare.
            self._pause_s = min(_MAX_SILENCE_S, max(0.5, self._pause_s * 2))
            return False
        self.event_buffer.clear()
        self._held.on_reply(control, sent_at=sent_at)
        self._last_at, self._pause_s = time.monotonic(), deps.config.progress_s
        return True


class Attempt:
    """Runs one claim and returns the outcome to settle; ``None`` if the task already belongs to another attempt."""

    def __init__(
        self,
        claim: Claim,
        held: HeldLease,
        *,
        deps: LeaderDeps,
        control_group: ControlGroup,
        trace: AttemptTrace = NO_ATTEMPT_TRACE,
    ) -> None:
        self._claim = claim
        self._held = held
        self._deps = deps
        self._control_group = control_group
        self._reporter = EventReporter(deps, held, trace)
        self._reports: Sequence[RankReport] = ()
        self._checkpoints: Checkpoints | None = None
        self._unreported: CheckpointRef | None = None
        """A stored checkpoint that the task's record does not point at yet."""
        self._context: LeaderContext | None = None

    def run(self, params: Any, workdir: Path) -> tuple[GroupDecision, Outcome | None]:
        """Run the task to its end. :raises GroupBrokenError: if the ranks can reach no further agreement."""
        deps, claim = self._deps, self._claim
        resume = self._resume()
        deps.phases.start()
        deps.metrics.begin_attempt()
        self._control_group.order(
            "run",
            resume or b"",
            task=claim.lease.task,
            attempt=claim.attempt,
            group=claim.lease.group,
            trace_id=claim.trace_context.trace_id if claim.trace_context is not None else "",
            input=claim.input_json,
            resumes=resume is not None,
        )
        context = LeaderContext(
            workdir=workdir, resume=resume, note=self._reporter.event_buffer.note, on_resumed=self._on_resumed
        )
        self._context = context
        self._checkpoints = Checkpoints(
            deps.blobs, claim.lease, every_s=deps.config.checkpoint_s, scratch=workdir
        )
        try:
            task: Task[Any] = Task(id=claim.lease.task, params=params, attempt=claim.attempt)
            decision = drive(begin(deps.workload, task, context), self._agree, check=checked_step)
            with deps.heartbeat.during("checkpoint", BLOB_STALL_S):
                self._checkpoints.close()
            if (
                decision not in (GroupDecision.FINISH, GroupDecision.BREAK)
                and self._reporter.event_buffer.has_notes
            ):
                self._reporter.write()  # the last lines before an error often explain it
            return decision, self._conclude(decision)
        finally:
            self._checkpoints.close()

    def _resume(self) -> bytes | None:
        checkpoint = self._claim.checkpoint
        if checkpoint is None:
            return None
        with self._deps.heartbeat.during("resume", BLOB_STALL_S):
            return fetch(self._deps.blobs, checkpoint)

    def _on_resumed(self, step: int) -> None:
        self._deps.phases.rebase()
        self._reporter.event_buffer.set(resumed_from_step=step)

    def _agree(self, own_report: RankReport, step: Step | None) -> GroupDecision:
        """Run one point of agreement, and return its decision."""
        deps, reporter, context, checkpoints = self._deps, self._reporter, self._context, self._checkpoints
        assert context is not None
        assert checkpoints is not None
        self._reports = [own_report]
        self._reports = self._control_group.collect(own_report)
        deps.heartbeat.beat()
        if step is not None:
            reporter.step(step)
            deps.metrics.step(step.phase)
            stored = checkpoints.stored()
            if reporter.due() or stored is not None:
                self._unreported = stored or self._unreported
                preview, context.latest_preview = context.latest_preview, None
                if reporter.write(checkpoint=self._unreported, preview=preview):
                    self._mark_reported()
        decision = decide(self._reports, self._held.control, release=self._must_release())
        if step is not None and step.snapshot is not None:
            if decision is GroupDecision.RELEASE:
                self._final_checkpoint(step)
            elif decision is GroupDecision.CONTINUE and checkpoints.due():
                checkpoints.begin(step.snapshot, step.step)
        self._control_group.announce(decision)
        return decision

    def _mark_reported(self) -> None:
        checkpoint, self._unreported = self._unreported, None
        if checkpoint is not None and self._checkpoints is not None:
            self._checkpoints.reported(checkpoint)

    def _must_release(self) -> bool:
        drained_s = self._held.drained_s()
        if drained_s is not None and drained_s >= self._deps.config.drain_s:
            return True
        return self._deps.must_leave() or self._control_group.wants_to_leave()

    def _final_checkpoint(self, step: Step) -> None:
        """Store a checkpoint of this step and report it, so that the task's record points at this checkpoint.

        The other ranks wait for the decision, so this takes at most half of ``stall_s``. After that, the task is
        released with an older checkpoint.
        """
        checkpoints, stall_s = self._checkpoints, self._deps.config.stall_s
        assert checkpoints is not None
        assert step.snapshot is not None
        until = time.monotonic() + stall_s / 2
        with self._deps.heartbeat.during("checkpoint", stall_s):
            self._unreported = checkpoints.stored(until=until) or self._unreported
            if not checkpoints.pending:
                checkpoints.begin(step.snapshot, step.step)
                self._unreported = checkpoints.stored(until=until) or self._unreported
            while self._unreported is not None:
                if self._reporter.write(checkpoint=self._unreported):
                    self._mark_reported()
                elif time.monotonic() < until:
                    time.sleep(_REPORT_RETRY_S)
                else:
                    return

    def _conclude(self, decision: GroupDecision) -> Outcome | None:
        match decision:
            case GroupDecision.FINISH:
                return self._finish()
            case GroupDecision.STOP:
                return Stopped()
            case GroupDecision.RELEASE:
                return Released(reason="drain")
            case GroupDecision.FAIL | GroupDecision.BREAK:
                return self.failure()
            case _:
                return None

    def failure(self) -> Failed:
        """Return why the attempt failed, from the reports of the ranks."""
        report = worst(self._reports)
        if report is None:
            return Failed(code="ranks_disagree", message="the ranks did not reach the same point")
        return Failed(code=report.code, message=report.message, permanent=report.permanent)

    def failure_cause(self, exc: Exception) -> Failed:
        """Return why the ranks could not agree. A report from a lost rank explains more than the loss itself."""
        report = self._control_group.failure(now=True) or worst(self._reports)
        if report is None:
            return Failed(code="rank_lost", message=str(exc))
        return Failed(code=report.code, message=report.message, permanent=report.permanent)

    def _finish(self) -> Outcome | None:
        """Upload the artifacts, then report them, and only then return ``Finished``."""
        reporter = self._reporter
        refs: list[ArtifactRef] = []
        assert self._context is not None
        try:
            with self._deps.heartbeat.during("upload", BLOB_STALL_S):
                for ref in self._uploads():
                    if ref is not None:
                        refs.append(ref)
                    self._deps.heartbeat.beat("upload")
                    if reporter.due():
                        reporter.write()
                    if self._held.control & Control.STALE:
                        return None
                    if self._held.control & (Control.CANCEL | Control.EXPIRE):
                        return Stopped()
        except (BlobError, OSError) as exc:
            return Failed(code="artifact_store", message=f"an artifact could not be stored: {exc}")
        except RetryableError as exc:  # the workload was still writing the file
            return Failed(code=exc.code, message=str(exc))
        for ref in refs:
            reporter.event_buffer.note(EventDraft(type="artifact", data=ref.description()))
        preview, self._context.latest_preview = self._context.latest_preview, None
        if reporter.event_buffer or preview is not None:
            reporter.write(preview=preview, last=True)
        return Finished(artifacts=tuple(refs))

    def _uploads(self) -> Iterator[ArtifactRef | None]:
        assert self._context is not None
        drafts = list(self._context.artifacts.values())
        if drafts:
            self._reporter.phase("upload")
        for draft in drafts:
            yield from upload_artifact(self._deps.blobs, self._held.lease, draft)

    def discard(self) -> None:
        """Remove this attempt's artifacts."""
        if self._context is not None and self._context.artifacts:
            discard(self._deps.blobs, self._held.lease)
