"""The leader's second thread: renews its leases and refreshes its group's record, but only while the work advances.

Every ``_POLL_S`` (0.25 s) the thread does this:

1. If the heartbeat has stalled, or a peer failed so that the ranks can reach no agreement, it calls ``on_break`` once
   and ends, so it renews no lease from then on. ``on_break`` settles the tasks. If ``on_break`` cannot reach the store,
   the tasks are retried when their leases end.
2. It renews each lease whose last renewal was sent a third of ``lease_s`` ago. It refreshes the group's record three
   times in the record's TTL, or more often if :meth:`LeaseRenewer.report` asks for that.
3. It restarts the watchdog process if that has died, and updates the times of renewal and refresh in shared memory.

An outage of the store is logged once and stops nothing: the work continues. Leases run on a clock that advances only
inside Redis, so no lease ends while Redis is down.

Fencing. Each lease has a token, which the store issued with the claim. The store compares the token at every report,
renewal and settlement; with the token of an earlier attempt the call changes nothing and returns ``Control.STALE``. So
a leader that was frozen for longer than its lease cannot overwrite the next attempt: it sees ``STALE`` at its next
step, stops, and removes its own files, whose keys contain its token.

A lease runs from when its renewal was *sent*, not from when the reply was read. While the work holds Python's lock,
this thread may read a reply seconds late. If the lease ran from that moment, it would look newer than it is, and the
watchdog would renew too late.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from daybreak_server.domain.ids import TaskId
from daybreak_server.domain.log_context import inherited
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.sessions import SessionId
from daybreak_server.domain.tasks import Control, Failed, Lease
from daybreak_server.engines.common.config import GroupConfig
from daybreak_server.engines.common.heartbeat import Heartbeat
from daybreak_server.engines.common.watchdog import Watchdog
from daybreak_server.ports.queue import WorkQueue
from daybreak_server.ports.store_errors import StoreError

_log = logging.getLogger(__name__)
_POLL_S = 0.25


class PeerFailure(Protocol):
    """Why the ranks can reach no further agreement."""

    @property
    def code(self) -> str:
        """A stable code for the reason; empty if there is none."""

    @property
    def message(self) -> str:
        """What happened, for people."""

    @property
    def permanent(self) -> bool:
        """Whether another attempt would fail in the same way."""


class Peers(Protocol):
    """The other ranks of a group, as far as the lease depends on them."""

    def failure(self) -> PeerFailure | None:
        """Return why the ranks can reach no further agreement, or ``None``."""


class HeldLease:
    """A lease that the leader holds, with the control bits that the store's replies have carried."""

    def __init__(self, lease: Lease, control: Control) -> None:
        self.lease = lease
        self._lock = threading.Lock()
        self._control = control
        self._renewed_at = time.monotonic()
        self._drain_since: float | None = None
        self.on_reply(control, sent_at=self._renewed_at)

    def on_reply(self, control: Control, *, sent_at: float) -> Control:
        """Record the reply to a call that extended the lease. Returns the control bits that hold now.

        The drain mark can be removed again, so the reply to the newest request decides whether it is set. Once set, the
        other bits stay set.

        :param sent_at: When the request was sent, in monotonic seconds: the lease runs from then.
        """
        with self._lock:
            drain = (control if sent_at >= self._renewed_at else self._control) & Control.DRAIN
            self._control = (self._control | control) & ~Control.DRAIN | drain
            self._renewed_at = max(self._renewed_at, sent_at)
            if not drain:
                self._drain_since = None
            elif self._drain_since is None:
                self._drain_since = time.monotonic()
            return self._control

    @property
    def control(self) -> Control:
        """The control bits that hold now."""
        return self._control

    @property
    def renewed_at(self) -> float:
        """When the latest renewal was sent, in monotonic seconds."""
        return self._renewed_at

    @property
    def age_s(self) -> float:
        """Seconds since the latest renewal was sent."""
        return time.monotonic() - self._renewed_at

    def drained_s(self) -> float | None:
        """Seconds since the group was marked to drain, or ``None`` if it is not."""
        return None if self._drain_since is None else time.monotonic() - self._drain_since


class LeaseRenewer:
    """The thread. ``on_break`` is called once, when the group cannot continue."""

    def __init__(
        self,
        queue: WorkQueue,
        config: GroupConfig,
        heartbeat: Heartbeat,
        *,
        record: GroupRecord,
        on_break: Callable[[Failed], None],
        watchdog: Watchdog | None = None,
    ) -> None:
        self._queue = queue
        self._config = config
        self._heartbeat = heartbeat
        self._on_break = on_break
        self._watchdog = watchdog
        self._lock = threading.Lock()
        self._record = record
        self._held: dict[TaskId, HeldLease] = {}
        self._peers: Peers | None = None
        self._refreshed_at = 0.0
        self._refresh_s = self.ttl_s / 3
        self._changes: Callable[[], Mapping[str, Any]] | None = None
        self._ended = threading.Event()
        self._broken = False
        self._reachable = True
        self._thread = threading.Thread(target=inherited(self._run), name="lease-renewer", daemon=True)
        self.drain = False
        """Whether the store has marked the group to drain."""
        self.batching: Mapping[str, Any] = {}
        """An administrator's changes to the pool's settings ``batching`` and ``sessions``. After the first call of
        :meth:`report`, each refresh reads them."""

    def start(self) -> None:
        """Start the thread, and the watchdog."""
        if self._watchdog is not None:
            self._watchdog.start()
            self._watchdog.record(self._record)
        self._thread.start()

    def stop(self) -> None:
        """Stop, and wait for the last call to the store. The watchdog keeps watching."""
        self._ended.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=30)

    def stop_watchdog(self) -> None:
        """Stop the watchdog. If this process is killed before, the watchdog settles its tasks and deregisters it."""
        if self._watchdog is not None:
            self._watchdog.stop()

    @property
    def record(self) -> GroupRecord:
        """The group's record, as the store gets it."""
        return self._record

    @property
    def ttl_s(self) -> float:
        """How long the group's record outlives the group."""
        return self._config.lease_s

    def update(self, *, now: bool = True, **changes: Any) -> GroupRecord:
        """Change the record. With ``now``, send the new record to the store at once."""
        with self._lock:
            # `since_ms` shows how long the group has been in its state and phase.
            before = {"state": self._record.state, "phase": self._record.phase}
            if any(changes.get(name, value) != value for name, value in before.items()):
                changes.setdefault("since_ms", time.time_ns() // 1_000_000)
            self._record = replace(self._record, **changes)
            if self._watchdog is not None:
                self._watchdog.record(self._record)
        if now:
            self.refresh()
        return self._record

    def watch(self, peers: Peers) -> None:
        """Watch the other ranks too from now on."""
        self._peers = peers

    def report(self, changes: Callable[[], Mapping[str, Any]], *, every_s: float) -> None:
        """Refresh the record at least every ``every_s`` from now on, each time with what ``changes`` returns.

        The call also reads :attr:`batching` at once, so that a new group uses these settings from its first batch on.
        """
        self._changes = changes
        self._refresh_s = min(self.ttl_s / 3, every_s)
        self.refresh()

    def hold(self, held: HeldLease) -> None:
        """Renew this lease too from now on."""
        with self._lock:
            self._held = {**self._held, held.lease.task: held}
            if self._watchdog is not None:
                self._watchdog.hold(held.lease, renewed_at=self._least_renewed_at())

    def drop(self, task: TaskId) -> None:
        """Stop renewing the lease of this task."""
        with self._lock:
            self._held = {other: held for other, held in self._held.items() if other != task}
            if self._watchdog is not None:
                self._watchdog.drop(task)

    def work_on(self, sessions: Sequence[SessionId]) -> None:
        """Show the watchdog the streaming sessions that the model works on from now on."""
        if self._watchdog is not None:
            self._watchdog.shared.work_on(sessions)

    def deregister_dead(self, queue: WorkQueue) -> None:
        """Remove the group's record, because the group has died."""
        worked_on = self._watchdog.shared.worked_on() if self._watchdog is not None else None
        queue.deregister_dead(self._record, worked_on=worked_on)

    def _least_renewed_at(self) -> float:
        """When the least recently renewed lease was renewed; 0 if the leader holds no lease."""
        return min((held.renewed_at for held in self._held.values()), default=0.0)

    def refresh(self) -> None:
        """Send the group's record to the store. An error is logged, and the thread retries later."""
        self._refreshed_at = time.monotonic()
        try:
            registered = self._queue.register(self._record, ttl_s=self.ttl_s)
            if self._changes is not None:
                self.batching = self._queue.batching()
        except StoreError as exc:
            self._log_unreachable(exc)
            return
        self._log_reachable()
        self.drain = registered.drain

    def _run(self) -> None:
        while not self._ended.wait(_POLL_S):
            failed = self._why_broken()
            if failed is not None and not self._broken:
                self._broken = True
                self._on_break(failed)
                return
            for held in self._held.values():
                if held.age_s >= self._config.renew_s and not held.control & Control.STALE:
                    self._renew(held)
            if time.monotonic() - self._refreshed_at >= self._refresh_s:
                self._refresh_changed()
            if self._watchdog is not None:
                self._watchdog.start()
                self._watchdog.shared.write(
                    renewed_at=self._least_renewed_at(), refreshed_at=self._refreshed_at
                )

    def _refresh_changed(self) -> None:
        try:
            changes = self._changes() if self._changes is not None else {}
        except Exception:
            _log.exception("the changes of the group's record cannot be read; refreshing the record as it is")
            changes = {}
        self.update(**changes)

    def _why_broken(self) -> Failed | None:
        stall = self._heartbeat.stalled()
        if stall is not None:
            return Failed(code="stalled", message=stall, reason="stalled")
        failure = self._peers.failure() if self._peers is not None else None
        if failure is not None:
            return Failed(
                code=failure.code or "rank_lost", message=failure.message, permanent=failure.permanent
            )
        return None

    def _renew(self, held: HeldLease) -> None:
        sent_at = time.monotonic()
        try:
            held.on_reply(self._queue.renew(held.lease), sent_at=sent_at)
        except StoreError as exc:
            self._log_unreachable(exc)
        else:
            self._log_reachable()

    def _log_unreachable(self, exc: Exception) -> None:
        if self._reachable:
            _log.warning("the store cannot be reached; the work continues and renewals are retried: %s", exc)
        self._reachable = False

    def _log_reachable(self) -> None:
        if not self._reachable:
            _log.info("the store can be reached again")
        self._reachable = True


IDLE_STATE = {True: GroupState.DRAINING, False: GroupState.IDLE}
"""The state of a group without a task, by whether it drains."""
