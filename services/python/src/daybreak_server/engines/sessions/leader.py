"""The leader of a group that serves streaming sessions: one rank, whose work thread runs the model.

In each iteration, the loop reads its mailbox (new sessions, audio, lost leases), lets the scheduler choose a
batch, and runs it. If there is no batch, the loop waits for mail, or until a batch is due. Once a second it
measures the lag. Calls to the store run on other threads
(:mod:`~daybreak_server.engines.sessions.threads`). There is one exception: while the group drains, the loop
itself asks the store once a second how many sessions other groups have room for.

A group that is asked to drain or to leave claims no more sessions. It continues to serve its sessions, and
releases them as soon as other groups have room for them, or after ``drain_s``. When the process dies, its
watchdog deregisters the group, which releases its sessions at once. Without a watchdog, other groups can
claim the sessions once their leases end. :mod:`daybreak_server.domain.sessions` describes how a session moves to
another group.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

from daybreak_server.batching.iterations.rules import SETTING_NAMES, IterationRules
from daybreak_server.domain.pools import GroupState
from daybreak_server.domain.serving_load import Load
from daybreak_server.domain.sessions import Intake
from daybreak_server.domain.tasks import Failed
from daybreak_server.engines.common.error_causes import describe
from daybreak_server.engines.common.lease_renewer import LeaseRenewer
from daybreak_server.engines.ranks.control_group import ControlGroup
from daybreak_server.engines.ranks.rank_deps import LeaderDeps
from daybreak_server.engines.sessions.session_metrics import SessionMetrics
from daybreak_server.engines.sessions.session_traces import SessionTraces
from daybreak_server.engines.sessions.table import SessionTable
from daybreak_server.engines.sessions.threads import Mailbox, StoreThreads
from daybreak_server.ports.sessions import SessionWork
from daybreak_server.ports.store_errors import StoreError
from daybreak_server.workloads.base import WorkloadSpec
from daybreak_server.workloads.sessions import SessionModel

_log = logging.getLogger(__name__)
_IDLE_S = 0.5
"""The loop waits for mail at most this long, so that it notices a request to leave."""
_MEASURE_S = 1.0
_IDLE_LIMIT_S = 60.0
_PAUSE_S = 0.05
_FLUSH_S = 5.0
"""When a group ends, it tries for at most this long to write its last commits."""
RELEASED, _BROKEN = "released", "group_broken"
"""Values of ``daybreak.outcome`` in a session's trace: why the group no longer has the session."""


class NotSessionsError(TypeError):
    """The group cannot serve sessions, because its workload is not a model for sessions, or because
    the group has several ranks."""


class SessionsLeader:
    """See the module."""

    def __init__(
        self,
        spec: WorkloadSpec[Any],
        /,
        *,
        deps: LeaderDeps,
        control_group: ControlGroup,
        lease_renewer: LeaseRenewer,
        stopping: threading.Event,
        open_work: Callable[[], SessionWork],
    ) -> None:
        config = deps.config
        if config.ranks > 1:
            raise NotSessionsError(
                f"a group of pool {config.pool} has {config.ranks} ranks, and one that serves sessions must have 1; "
                "set ranks to 1"
            )
        if not callable(getattr(deps.workload, "prefill", None)):
            raise NotSessionsError(
                f"the class of workload {spec.name!r} has no method `prefill`, which the kind `sessions` needs"
            )
        self._deps = deps
        self._control_group = control_group
        self._lease_renewer = lease_renewer
        self._stopping = stopping
        self._breaking = threading.Lock()
        self._broken: Failed | None = None
        self._release_now = threading.Event()
        self._changes: Mapping[str, Any] = {}
        self._drain_since: float | None = None
        self._measured_at = 0.0
        self._taken = 0
        self._work = open_work()
        self._mailbox = Mailbox()
        self._threads = StoreThreads(
            self._work, lease_renewer.record.id, mailbox=self._mailbox, stalled=deps.heartbeat.stalled
        )
        self._traces = SessionTraces(deps.tracing, group=lease_renewer.record.id)
        self.table = SessionTable(
            cast("SessionModel", deps.workload),
            rules=IterationRules.of(_only(config.sessions, SETTING_NAMES)),
            write=self._threads.commit,
            metrics=SessionMetrics(deps.metrics.meter, pool=config.pool),
            traces=self._traces,
            work_on=lease_renewer.work_on,
        )
        self._apply_batching_settings(config.sessions)
        lease_renewer.update(now=False, load=self._load())

    @property
    def broken(self) -> Failed | None:
        """Why the group is broken, or ``None``."""
        return self._broken

    @property
    def lease_age_s(self) -> float | None:
        """Always ``None``, because another thread renews the leases of all sessions in one call."""
        return None

    def run(self) -> bool:
        """Serve. Returns ``True`` if the group was asked to leave, ``False`` if it is broken."""
        self._lease_renewer.report(self._record_changes, every_s=_MEASURE_S)
        self._threads.start()
        try:
            while self._broken is None and not self._has_left():
                self._serve()
        except BaseException as exc:
            _log.exception("the group cannot continue")
            self.break_group(Failed(code="internal", message=describe(exc)))
        if self._broken is None:
            self._leave()
        else:
            self._traces.end_all(_BROKEN, error=self._broken.code)
        self._threads.stop()
        return self._broken is None

    def _leave(self) -> None:
        """Release the sessions that were claimed at the last moment, and write all commits that are left."""
        self._share()
        self._threads.release([claim.lease for claim in self._threads.end_claims()])
        if not self._threads.flush(timeout_s=_FLUSH_S):
            _log.warning("not all of the sessions' text could be written; the next group computes it again")

    def break_group(self, failed: Failed) -> None:
        """Mark the group broken. Other groups can claim its sessions once it is deregistered."""
        with self._breaking:
            if self._broken is not None:
                return
            self._broken = failed
        _log.error("the group is broken: %s: %s", failed.code, failed.message)
        self._mailbox.wake()

    def release_task(self) -> None:
        """Release all sessions at once, because the time limit for leaving has passed."""
        self._release_now.set()
        self._mailbox.wake()

    # ── the loop ─────────────────────────────────────────────────────────────────────────────────────────

    @property
    def _intake(self) -> Intake:
        if self._draining:
            return Intake.NONE
        return Intake.ORPHANS if self.table.measured.full else Intake.ALL

    @property
    def _leaving(self) -> bool:
        return self._stopping.is_set() or self._control_group.wants_to_leave()

    @property
    def _draining(self) -> bool:
        return self._leaving or self._lease_renewer.drain

    def _has_left(self) -> bool:
        return self._leaving and not len(self.table)

    def _serve(self) -> None:
        """One iteration of the loop."""
        started = time.monotonic()
        self._deps.heartbeat.beat(
            "sessions" if len(self.table) else "idle", limit_s=max(_IDLE_LIMIT_S, self._deps.config.stall_s)
        )
        self._every_second(started)
        if self._threads.behind:  # the model pauses until the store has the commits that wait
            time.sleep(_PAUSE_S)
            self._receive(wait_s=0)
            return
        due_at = self.table.step(started)
        self._receive(wait_s=0 if due_at is None else min(_IDLE_S, max(0.0, due_at - time.monotonic())))

    def _receive(self, *, wait_s: float) -> None:
        claims, news = self._mailbox.take(wait_s=wait_s)
        if not claims and not news:
            return
        now = time.monotonic()
        for claim in claims:
            self._taken += 1
            # A claim that was under way when the group began to leave may still bring a session.
            if self.table.room > 0 and not self._draining:
                self.table.take(claim, now)
            else:
                self._threads.release([claim.lease])
        for item in news:
            self.table.add_news(item, now)
        self._share()

    def _share(self) -> None:
        table = self.table
        self._threads.share(
            room=table.room,
            intake=self._intake,
            taken=self._taken,
            positions=table.positions,
            leases=table.leases,
            measured=table.measured,
        )

    def _every_second(self, now: float) -> None:
        """At most once a second: apply new settings, measure the lag, and release sessions if the group drains."""
        if now < self._measured_at + _MEASURE_S:
            return
        self._measured_at = now
        changes = self._lease_renewer.batching
        if changes != self._changes:
            self._changes = changes
            self._apply_batching_settings({**self._deps.config.sessions, **changes})
        self.table.measure(now, wall_ms=time.time() * 1000)
        if self._draining:
            self.table.measured = replace(self.table.measured, room=0)
            self._share()  # before the release; otherwise the claimer would claim the released sessions again
            self._release_while_draining(now)
        else:
            self._drain_since = None
        self._share()

    def _apply_batching_settings(self, settings: Mapping[str, Any]) -> None:
        """Apply ``settings`` from now on."""
        lag = self.table.lag_rules
        try:
            rules = IterationRules.of(_only(settings, SETTING_NAMES))
            lag = replace(
                lag,
                limit_s=settings.get("lag_limit_ms", lag.limit_s * 1000) / 1000,
                lowest=settings.get("latency_multiplier", lag.lowest),
                highest=settings.get("max_latency_multiplier", lag.highest),
            )
            self.table.scheduler.rules, self.table.lag_rules = rules, lag
        except ValueError as exc:
            _log.error("the settings of sessions cannot be used, so the former ones stay: %s", exc)

    def _release_while_draining(self, now: float) -> None:
        """Release as many sessions as other groups have room for, or all of them when the time to drain is
        over."""
        self._drain_since = self._drain_since or now
        over = self._release_now.is_set() or now >= self._drain_since + self._deps.config.drain_s
        leases = self.table.leases
        if not over and leases:
            try:
                leases = leases[: self._work.room_elsewhere(self._lease_renewer.record.id)]
            except StoreError as exc:
                _log.warning("cannot see whether other groups have room: %s", exc)
                return
        for lease in leases:
            self.table.forget(lease.session, RELEASED)
        self._threads.release(leases)

    def _record_changes(self) -> Mapping[str, Any]:
        busy = GroupState.BUSY if len(self.table) else GroupState.IDLE
        return {"state": GroupState.DRAINING if self._draining else busy, "load": self._load()}

    def _load(self) -> Load:
        used, reserved = cast("SessionModel", self._deps.workload).memory()
        return Load(sessions=len(self.table), free_memory_bytes=max(0, reserved - used))


def _only(settings: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: settings[name] for name in names if name in settings}
