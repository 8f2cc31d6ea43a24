"""The leader's loop: claim, run, settle, and again. Rank 0 alone talks to the store and to the blob store."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from daybreak_server.domain.causes import Cause, Reason
from daybreak_server.domain.pools import GroupState, WakePhase
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
from daybreak_server.engines.gang.attempt import Attempt, LeaderDeps
from daybreak_server.engines.gang.consensus import Verdict, report_of
from daybreak_server.engines.gang.control_group import ControlGroup
from daybreak_server.engines.gang.lockstep import ScratchDirs
from daybreak_server.engines.rank.artifacts import BLOB_STALL_S
from daybreak_server.engines.rank.causes import described
from daybreak_server.engines.rank.errors import GroupBrokenError
from daybreak_server.engines.rank.lease_renewer import IDLE_STATE, HeldLease, LeaseRenewer
from daybreak_server.ports.blobs import BlobError, BlobRefusedError
from daybreak_server.ports.store_errors import StoreError, StoreUnavailableError
from daybreak_server.workloads.base import WorkloadSpec
from daybreak_server.workloads.inputs import context_of, restored

_log = logging.getLogger(__name__)
_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)
FILES_AGAIN_S = 5.0
"""Pause before a store of files that refused is tried again."""


class LeaderLoop:
    """Serves a pool until it is told to go, or until the group breaks (then ``run`` returns ``False``)."""

    def __init__(
        self,
        spec: WorkloadSpec[Any],
        *,
        means: LeaderDeps,
        control_group: ControlGroup,
        lease_renewer: LeaseRenewer,
        going: threading.Event,
    ) -> None:
        self._spec = spec
        self._means = means
        self._control_group = control_group
        self._lease_renewer = lease_renewer
        self._going = going
        self._breaking = threading.Lock()
        self._hold: HeldLease | None = None
        self._broken: Failed | None = None
        self._pinged = time.monotonic()
        self._files_doubtful = True
        """Whether it must be seen first that what a task makes can be stored: a new group, or one that could not."""
        self._files_again = 0.0
        self._folders = ScratchDirs(means.config.scratch)

    @property
    def broken(self) -> Failed | None:
        """Why the group is broken, or ``None``."""
        return self._broken

    def run(self) -> bool:
        """Serve. ``True``: told to go, and everything was given back."""
        claim: Claim | None = None
        outage = 0
        while not (self._broken or (claim is None and self._must_leave())):
            try:
                if claim is None:
                    claim = self._next_claim()
                outage = 0
                if claim is not None:
                    claim = self._attempt(claim)
                elif time.monotonic() - self._pinged >= self._means.config.ping_s:
                    self._control_group.order("ping")
                    self._pinged = time.monotonic()
            except GroupBrokenError as exc:
                self.break_group(Failed(code="rank_lost", message=str(exc)))
            except StoreError as exc:
                if outage == 0:
                    _log.warning("cannot claim, trying again: %s", exc)
                self._going.wait(_BACKOFF_S[min(outage, len(_BACKOFF_S) - 1)])
                outage += 1
            except BaseException as exc:
                # Ours. A group that left with the task in its hands would hand it back without a reason.
                _log.exception("the group cannot go on")
                self.break_group(Failed(code="internal", message=described(exc)))
        self._folders.close()
        return self._broken is None

    def _must_leave(self) -> bool:
        return self._going.is_set() or self._control_group.wants_to_leave()

    def _next_claim(self) -> Claim | None:
        config, lease_renewer = self._means.config, self._lease_renewer
        self._means.heartbeat.beat("idle", limit_s=max(60.0, config.stall_s))
        if self._files_doubtful and not self._files_are_taken():
            self._going.wait(config.idle_s)
            return None
        state, before = IDLE_STATE[lease_renewer.drain], lease_renewer.record
        if before.state is not state or before.tasks:
            # That a busy group is idle again, the store has written with the settlement.
            said = before.state is GroupState.BUSY and state is GroupState.IDLE
            lease_renewer.update(now=not said, state=state, tasks=())
        if lease_renewer.drain:
            self._going.wait(config.idle_s)  # a mark can be taken away again
            return None
        return self._means.queue.claim(lease_renewer.record, wait_s=config.idle_s)

    def _files_are_taken(self) -> bool:
        """Whether what a task makes can be stored. While it is refused, that is said and no task is taken: it would
        do its whole work for a strike. A store that cannot be reached is waited for by each upload instead."""
        if time.monotonic() < self._files_again:
            return False
        try:
            with self._means.heartbeat.during("files", BLOB_STALL_S):
                self._means.blobs.probe()
        except BlobRefusedError as exc:
            _log.error("no task is taken: %s", exc)
            self._lease_renewer.update(
                state=GroupState.LOADING, phase=WakePhase.WARM_UP, tasks=(), detail=str(exc)[:300]
            )
            message = f"What tasks make cannot be stored (S3 or the folder refuses it): {exc}"
            self._means.queue.failed(Cause(reason=Reason.ARTIFACTS_REFUSED, message=message))
            self._files_again = time.monotonic() + FILES_AGAIN_S
            return False
        except BlobError as exc:
            _log.warning("whether files can be stored is not known yet: %s", exc)
        self._files_doubtful = False
        if self._lease_renewer.record.detail:
            self._lease_renewer.update(now=False, phase=WakePhase.READY, detail="")
        return True

    def _attempt(self, claim: Claim) -> Claim | None:
        """One claim, to its settlement. Returns the next claim, where one came with it."""
        config, lease_renewer = self._means.config, self._lease_renewer
        hold = HeldLease(claim.lease, claim.control)
        self._hold = hold
        state = GroupState.DRAINING if lease_renewer.drain else GroupState.BUSY
        lease_renewer.update(now=False, state=state, tasks=(claim.lease.task,))
        lease_renewer.hold(hold)
        self._means.heartbeat.beat("task", limit_s=config.stall_s)
        attempt = Attempt(claim, hold, means=self._means, control_group=self._control_group)
        try:
            verdict, outcome = self._run_attempt(attempt, claim, hold)
        except GroupBrokenError as exc:
            self.break_group(attempt.blame(exc))
            return None
        if verdict is Verdict.BREAK:
            self.break_group(attempt.failure())
            return None
        if outcome is None:
            lease_renewer.drop(claim.lease.task)
            self._hold = None
            attempt.discard()
            return None
        self._files_doubtful |= isinstance(outcome, Failed) and outcome.code == "artifact_store"
        settled = self._settle(hold, outcome)
        if settled is None:  # it may have been published by a call whose answer was lost: the sweeper knows
            return None
        if settled.stale or settled.state is not State.SUCCEEDED:
            attempt.discard()
        return settled.next

    def _run_attempt(self, attempt: Attempt, claim: Claim, hold: HeldLease) -> tuple[Verdict, Outcome | None]:
        if claim.control & (Control.CANCEL | Control.EXPIRE):
            return Verdict.STOP, Stopped()
        if self._must_leave():
            return Verdict.RELEASE, Released(reason="drain")
        try:
            params = restored(
                self._spec, claim.input_json, context_of(self._spec, self._means.config.options)
            )
        except ValueError as exc:  # pydantic's ValidationError is one
            return Verdict.FAIL, Failed(code="invalid_input", message=storable(exc), permanent=True)
        except BaseException as exc:  # the workload's validators are its own code
            why = report_of(exc, point=0)
            return Verdict.FAIL, Failed(code=why.code, message=why.message, permanent=why.permanent)
        try:
            with self._folders.one() as workdir:
                return attempt.run(params, workdir)
        except OSError as exc:
            why = report_of(exc, point=0)
            return Verdict.FAIL, Failed(code="no_scratch_space", message=why.message)

    def _settle(self, hold: HeldLease, outcome: Outcome) -> Settled | None:
        """Settle until it is answered: an outage ends no lease; the same outcome again changes nothing."""
        lease_renewer, tries = self._lease_renewer, 0
        leaving_since: float | None = None
        while self._broken is None:
            self._means.heartbeat.beat("settle")
            if self._must_leave() and leaving_since is None:
                leaving_since = time.monotonic()
            stay = leaving_since is None and not lease_renewer.drain and not hold.control & Control.DRAIN
            stay = stay and not self._files_doubtful
            settled: Settled | None
            try:
                settled = self._means.queue.settle(
                    hold.lease, outcome, claim_next=lease_renewer.record if stay else None
                )
            except StoreUnavailableError as exc:
                if tries == 0:
                    _log.warning("%s cannot be settled yet: %s", hold.lease.task, exc)
                if (
                    leaving_since is not None
                    and time.monotonic() - leaving_since > self._means.config.lease_s
                ):
                    return None
                time.sleep(_BACKOFF_S[min(tries, len(_BACKOFF_S) - 1)])
                tries += 1
                continue
            except StoreError as exc:
                # Trying again cannot help; holding on would keep the task from everybody.
                _log.error("%s cannot be settled and is left to its lease: %s", hold.lease.task, exc)
                settled = None
            lease_renewer.drop(hold.lease.task)
            self._hold = None
            if settled is not None and settled.stale:
                _log.warning("%s was not ours any more when it ended", hold.lease.task)
            return settled
        return None

    def break_group(self, why: Failed) -> None:
        """The group cannot go on: settle what it holds as a strike. The first thread to see it wins."""
        with self._breaking:
            if self._broken is not None:
                return
            self._broken = why
        _log.error("the group is broken: %s: %s", why.code, why.message)
        hold = self._hold
        if hold is not None:
            self._strike(hold.lease, why)

    def _strike(self, lease: Lease, why: Failed) -> None:
        until = time.monotonic() + self._means.config.lease_s
        while True:
            try:
                self._means.queue.settle(lease, why)
                return
            except StoreError as exc:
                if time.monotonic() > until:
                    _log.warning("%s is left to its lease: %s", lease.task, exc)
                    return
                time.sleep(0.5)

    def release_task(self) -> None:
        """The time to leave is over and a step still runs: give its task back without it."""
        hold = self._hold
        if hold is None:
            return
        try:
            self._means.queue.settle(hold.lease, Released(reason="drain"))
        except StoreError as exc:
            _log.warning("%s is left to its lease: %s", hold.lease.task, exc)
