"""One attempt at a task, as the leader goes through it: from the claim to the outcome that is settled."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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
from daybreak_server.engines.gang.consensus import Report, Verdict, decide, worst
from daybreak_server.engines.gang.control_group import ControlGroup
from daybreak_server.engines.gang.lockstep import begin, drive
from daybreak_server.engines.rank.artifacts import BLOB_STALL_S, Checkpoints, discard, fetch, publish
from daybreak_server.engines.rank.config import GangConfig
from daybreak_server.engines.rank.context import LeaderContext
from daybreak_server.engines.rank.heartbeat import Heartbeat
from daybreak_server.engines.rank.lease_renewer import HeldLease
from daybreak_server.engines.rank.progress import EventBuffer, PhaseEta
from daybreak_server.ports.blobs import BlobError, Blobs
from daybreak_server.ports.queue import WorkQueue
from daybreak_server.ports.store_errors import StoreError
from daybreak_server.workloads.base import RetryableError, Step, Task, Workload

_log = logging.getLogger(__name__)
_MAX_SILENCE_S = 5.0
_REPORT_AGAIN_S = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderDeps:
    """What a leader works with."""

    config: GangConfig
    queue: WorkQueue
    blobs: Blobs
    workload: Workload[Any]
    heartbeat: Heartbeat
    phases: PhaseEta
    must_leave: Callable[[], bool]
    """Whether this group has been told to go (its process, its node): hand the task back now."""


class EventReporter:
    """Writes what happened to the store, at most each ``progress_s``; control bits come back."""

    def __init__(self, means: LeaderDeps, hold: HeldLease) -> None:
        self._means = means
        self._hold = hold
        self.event_buffer = EventBuffer()
        self._last = time.monotonic()
        self._pause_s = means.config.progress_s
        self._fraction = 0.0

    def due(self) -> bool:
        """Whether the next write may happen now."""
        return time.monotonic() - self._last >= self._pause_s

    def step(self, step: Step) -> None:
        """A step that all ranks have ended. The fraction never falls, whatever the workload says."""
        self._fraction = max(self._fraction, min(1.0, step.fraction))
        eta_s = self._means.phases.step(step.phase, self._fraction)
        self.event_buffer.step(step, fraction=self._fraction, eta_s=eta_s)

    def phase(self, phase: str) -> None:
        """A phase that is the gang's own."""
        self.step(Step(phase=phase, fraction=self._fraction))

    def write(
        self, *, checkpoint: CheckpointRef | None = None, preview: tuple[bytes, int, str] | None = None
    ) -> bool:
        """Write now; whether it worked. An outage is no reason to stop: it is all written later."""
        means, lease, asked = self._means, self._hold.lease, time.monotonic()
        try:
            if preview is not None:
                image, step, kind = preview
                means.queue.preview(lease, image, content_type=kind, ttl_s=means.config.preview_ttl_s)
                shown = {"name": "preview", "step": step, "content_type": kind}
                self.event_buffer.note(EventDraft(type="preview", data=shown))
            events, fields = self.event_buffer.take()
            control = means.queue.report(lease, events, checkpoint=checkpoint, fields=fields)
        except StoreError as exc:
            _log.debug("the report of %s waits: %s", lease.task, exc)
            self._last = time.monotonic()
            # Each try may take the store's whole timeout: do not let the work wait for it often.
            self._pause_s = min(_MAX_SILENCE_S, max(0.5, self._pause_s * 2))
            return False
        self.event_buffer.written()
        self._hold.heard(control, asked=asked)
        self._last, self._pause_s = time.monotonic(), means.config.progress_s
        return True


class Attempt:
    """Goes through one claim, to the outcome that the leader settles (``None``: not our task any more)."""

    def __init__(
        self, claim: Claim, hold: HeldLease, *, means: LeaderDeps, control_group: ControlGroup
    ) -> None:
        self._claim = claim
        self._hold = hold
        self._means = means
        self._control_group = control_group
        self._reporter = EventReporter(means, hold)
        self._reports: Sequence[Report] = ()
        self._checkpoints: Checkpoints | None = None
        self._unreported: CheckpointRef | None = None
        """Stored, but the store of tasks could not be told yet."""
        self._context: LeaderContext | None = None

    def run(self, params: Any, workdir: Path) -> tuple[Verdict, Outcome | None]:
        """Do it all. :raises GroupBrokenError: when the ranks cannot agree any more."""
        means, claim = self._means, self._claim
        resume = self._resume()
        means.phases.start()
        self._control_group.order(
            "run",
            resume or b"",
            task=claim.lease.task,
            attempt=claim.attempt,
            input=claim.input_json,
            resumes=resume is not None,
        )
        context = LeaderContext(
            workdir=workdir, resume=resume, note=self._reporter.event_buffer.note, on_resumed=self._on_resumed
        )
        self._context = context
        self._checkpoints = Checkpoints(
            means.blobs, claim.lease, every_s=means.config.checkpoint_s, scratch=workdir
        )
        try:
            task: Task[Any] = Task(id=claim.lease.task, params=params, attempt=claim.attempt)
            verdict = drive(begin(means.workload, task, context), self._agree)
            with means.heartbeat.during("checkpoint", BLOB_STALL_S):
                self._checkpoints.close()
            return verdict, self._conclude(verdict)
        finally:
            self._checkpoints.close()

    def _resume(self) -> bytes | None:
        checkpoint = self._claim.checkpoint
        if checkpoint is None:
            return None
        with self._means.heartbeat.during("resume", BLOB_STALL_S):
            return fetch(self._means.blobs, checkpoint)

    def _on_resumed(self, step: int) -> None:
        self._means.phases.rebase()
        self._reporter.event_buffer.set(resumed_from_step=step)

    def _agree(self, mine: Report, step: Step | None) -> Verdict:
        """One point of agreement: hear all ranks, ask the store for the control bits, decide, tell."""
        means, reporter, context, checkpoints = self._means, self._reporter, self._context, self._checkpoints
        assert context is not None
        assert checkpoints is not None
        self._reports = [mine]
        self._reports = self._control_group.collect(mine)
        means.heartbeat.beat()
        if step is not None:
            reporter.step(step)
            fresh = checkpoints.stored()
            if reporter.due() or fresh is not None:
                self._unreported = fresh or self._unreported
                preview, context.latest_preview = context.latest_preview, None
                if reporter.write(checkpoint=self._unreported, preview=preview):
                    self._reported()
        verdict = decide(self._reports, self._hold.control, release=self._must_release())
        if step is not None and step.snapshot is not None:
            if verdict is Verdict.RELEASE:
                self._final_checkpoint(step)
            elif verdict is Verdict.GO_ON and checkpoints.due():
                checkpoints.begin(step.snapshot, step.step)
        self._control_group.tell(verdict)
        return verdict

    def _reported(self) -> None:
        done, self._unreported = self._unreported, None
        if done is not None and self._checkpoints is not None:
            self._checkpoints.reported(done)

    def _must_release(self) -> bool:
        drained_s = self._hold.drained_s()
        if drained_s is not None and drained_s >= self._means.config.drain_s:
            return True
        return self._means.must_leave() or self._control_group.wants_to_leave()

    def _final_checkpoint(self, step: Step) -> None:
        """Store where the work stands, and have the record point at it. The other ranks wait meanwhile, so it takes
        half of what is a stall at most; then the task goes back with an older checkpoint."""
        checkpoints, stall_s = self._checkpoints, self._means.config.stall_s
        assert checkpoints is not None
        assert step.snapshot is not None
        until = time.monotonic() + stall_s / 2
        with self._means.heartbeat.during("checkpoint", stall_s):
            self._unreported = checkpoints.stored(until=until) or self._unreported
            if not checkpoints.pending:
                checkpoints.begin(step.snapshot, step.step)
                self._unreported = checkpoints.stored(until=until) or self._unreported
            while self._unreported is not None:
                if self._reporter.write(checkpoint=self._unreported):
                    self._reported()
                elif time.monotonic() < until:
                    time.sleep(_REPORT_AGAIN_S)
                else:
                    return

    def _conclude(self, verdict: Verdict) -> Outcome | None:
        match verdict:
            case Verdict.FINISH:
                return self._finish()
            case Verdict.STOP:
                return Stopped()
            case Verdict.RELEASE:
                return Released(reason="drain")
            case Verdict.FAIL | Verdict.BREAK:
                return self.failure()
            case _:
                return None

    def failure(self) -> Failed:
        """Why it failed, from what the ranks reported."""
        why = worst(self._reports)
        if why is None:
            return Failed(code="ranks_disagree", message="the ranks did not come to the same point")
        return Failed(code=why.code, message=why.message, permanent=why.permanent)

    def blame(self, exc: Exception) -> Failed:
        """Why the ranks cannot agree: what a rank said before it was lost tells more than its loss."""
        why = self._control_group.trouble(now=True) or worst(self._reports)
        if why is None:
            return Failed(code="rank_lost", message=str(exc))
        return Failed(code=why.code, message=why.message, permanent=why.permanent)

    def _finish(self) -> Outcome | None:
        """Upload, tell, and only then claim success: the files are there before anybody can know of them."""
        reporter = self._reporter
        refs: list[ArtifactRef] = []
        assert self._context is not None
        try:
            with self._means.heartbeat.during("upload", BLOB_STALL_S):
                for done in self._uploads():
                    if done is not None:
                        refs.append(done)
                    self._means.heartbeat.beat("upload")
                    if reporter.due():
                        reporter.write()
                    if self._hold.control & Control.STALE:
                        return None
                    if self._hold.control & (Control.CANCEL | Control.EXPIRE):
                        return Stopped()
        except (BlobError, OSError) as exc:
            return Failed(code="artifact_store", message=f"an artifact could not be stored: {exc}")
        except RetryableError as exc:  # the file was not done: the workload's own
            return Failed(code=exc.code, message=str(exc))
        for ref in refs:
            reporter.event_buffer.note(EventDraft(type="artifact", data=ref.description()))
        preview, self._context.latest_preview = self._context.latest_preview, None
        if reporter.event_buffer or preview is not None:
            reporter.write(preview=preview)
        return Finished(artifacts=tuple(refs))

    def _uploads(self) -> Iterator[ArtifactRef | None]:
        assert self._context is not None
        drafts = list(self._context.artifacts.values())
        if drafts:
            self._reporter.phase("upload")
        for draft in drafts:
            yield from publish(self._means.blobs, self._hold.lease, draft)

    def discard(self) -> None:
        """Remove this attempt's files."""
        if self._context is not None and self._context.artifacts:
            discard(self._means.blobs, self._hold.lease)
