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
from daybreak_server.gang.attempt import Attempt, Means
from daybreak_server.gang.causes import described
from daybreak_server.gang.files import FILES_S
from daybreak_server.gang.keeper import STATE_OF, Hold, Keeper
from daybreak_server.gang.lockstep import WorkFolders
from daybreak_server.gang.peers import Crew, GroupBrokenError
from daybreak_server.gang.verdict import Verdict, report_of
from daybreak_server.ports.blobs import BlobError, BlobRefusedError
from daybreak_server.ports.store import StoreError, StoreUnavailableError
from daybreak_server.workloads.base import WorkloadSpec
from daybreak_server.workloads.inputs import context_of, restored

_log = logging.getLogger(__name__)
_BACKOFF_S = (0.2, 0.5, 1.0, 2.0, 5.0)
FILES_AGAIN_S = 5.0
"""Pause before a store of files that refused is tried again."""


class LeaderLoop:
    """Serves a pool until it is told to go, or until the group breaks (then ``run`` returns ``False``)."""

    def __init__(
        self, spec: WorkloadSpec[Any], *, means: Means, crew: Crew, keeper: Keeper, going: threading.Event
    ) -> None:
        self._spec = spec
        self._means = means
        self._crew = crew
        self._keeper = keeper
        self._going = going
        self._breaking = threading.Lock()
        self._hold: Hold | None = None
        self._broken: Failed | None = None
        self._pinged = time.monotonic()
        self._files_doubtful = True
        """Whether it must be seen first that what a task makes can be stored: a new group, or one that could not."""
        self._files_again = 0.0
        self._folders = WorkFolders(means.config.scratch)

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
                    self._crew.order("ping")
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
        return self._going.is_set() or self._crew.wants_to_leave()

    def _next_claim(self) -> Claim | None:
        config, keeper = self._means.config, self._keeper
        self._means.pulse.beat("idle", limit_s=max(60.0, config.stall_s))
        if self._files_doubtful and not self._files_are_taken():
            self._going.wait(config.idle_s)
            return None
        state, before = STATE_OF[keeper.drain], keeper.record
        if before.state is not state or before.tasks:
            # That a busy group is idle again, the store has written with the settlement.
            said = before.state is GroupState.BUSY and state is GroupState.IDLE
            keeper.update(now=not said, state=state, tasks=())
        if keeper.drain:
            self._going.wait(config.idle_s)  # a mark can be taken away again
            return None
        return self._means.queue.claim(keeper.record, wait_s=config.idle_s)

    def _files_are_taken(self) -> bool:
        """Whether what a task makes can be stored. While it is refused, that is said and no task is taken: it would
        do its whole work for a strike. A store that cannot be reached is waited for by each upload instead."""
        if time.monotonic() < self._files_again:
            return False
        try:
            with self._means.pulse.during("files", FILES_S):
                self._means.blobs.probe()
        except BlobRefusedError as exc:
            _log.error("no task is taken: %s", exc)
            self._keeper.update(
                state=GroupState.LOADING, phase=WakePhase.WARM_UP, tasks=(), detail=str(exc)[:300]
            )
            message = f"What tasks make cannot be stored (S3 or the folder refuses it): {exc}"
            self._means.queue.failed(Cause(reason=Reason.ARTIFACTS_REFUSED, message=message))
            self._files_again = time.monotonic() + FILES_AGAIN_S
            return False
        except BlobError as exc:
            _log.warning("whether files can be stored is not known yet: %s", exc)
        self._files_doubtful = False
        if self._keeper.record.detail:
            self._keeper.update(now=False, phase=WakePhase.READY, detail="")
        return True

    def _attempt(self, claim: Claim) -> Claim | None:
        """One claim, to its settlement. Returns the next claim, where one came with it."""
        config, keeper = self._means.config, self._keeper
        hold = Hold(claim.lease, claim.control)
        self._hold = hold
        state = GroupState.DRAINING if keeper.drain else GroupState.BUSY
        keeper.update(now=False, state=state, tasks=(claim.lease.task,))
        keeper.hold(hold)
        self._means.pulse.beat("task", limit_s=config.stall_s)
        attempt = Attempt(claim, hold, means=self._means, crew=self._crew)
        try:
            verdict, outcome = self._go_through(attempt, claim, hold)
        except GroupBrokenError as exc:
            self.break_group(attempt.blame(exc))
            return None
        if verdict is Verdict.BREAK:
            self.break_group(attempt.failure())
            return None
        if outcome is None:
            keeper.drop(claim.lease.task)
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

    def _go_through(self, attempt: Attempt, claim: Claim, hold: Hold) -> tuple[Verdict, Outcome | None]:
        if claim.control & (Control.CANCEL | Control.EXPIRE):
            return Verdict.STOP, Stopped()
        if self._must_leave():
            return Verdict.HAND_BACK, Released(reason="drain")
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

    def _settle(self, hold: Hold, outcome: Outcome) -> Settled | None:
        """Settle until it is answered: an outage ends no lease; the same outcome again changes nothing."""
        keeper, tries = self._keeper, 0
        leaving_since: float | None = None
        while self._broken is None:
            self._means.pulse.beat("settle")
            if self._must_leave() and leaving_since is None:
                leaving_since = time.monotonic()
            stay = leaving_since is None and not keeper.drain and not hold.control & Control.DRAIN
            stay = stay and not self._files_doubtful
            settled: Settled | None
            try:
                settled = self._means.queue.settle(
                    hold.lease, outcome, claim_next=keeper.record if stay else None
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
            keeper.drop(hold.lease.task)
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

    def give_back(self) -> None:
        """The time to leave is over and a step still runs: give its task back without it."""
        hold = self._hold
        if hold is None:
            return
        try:
            self._means.queue.settle(hold.lease, Released(reason="drain"))
        except StoreError as exc:
            _log.warning("%s is left to its lease: %s", hold.lease.task, exc)
