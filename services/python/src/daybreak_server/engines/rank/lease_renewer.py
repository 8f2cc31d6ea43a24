"""The leader's second thread: keeps the lease and the group's record, but only while the work advances."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from daybreak_server.domain.ids import TaskId
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.tasks import Control, Failed, Lease
from daybreak_server.engines.rank.config import GangConfig
from daybreak_server.engines.rank.heartbeat import Heartbeat
from daybreak_server.engines.rank.watchdog import Watchdog
from daybreak_server.ports.queue import WorkQueue
from daybreak_server.ports.store_errors import StoreError

_log = logging.getLogger(__name__)
_LOOK_S = 0.25


class Trouble(Protocol):
    """Why a group is broken."""

    @property
    def code(self) -> str:
        """A stable word for it; empty where there is none."""

    @property
    def message(self) -> str:
        """What happened, for people."""

    @property
    def permanent(self) -> bool:
        """Whether another attempt would fail in the same way."""


class Peers(Protocol):
    """The other ranks of a group, as far as the lease depends on them."""

    def trouble(self) -> Trouble | None:
        """Why the group can reach no further agreement, or ``None``."""


class HeldLease:
    """The leader's hold on one task: its lease, and the control bits that answers have carried."""

    def __init__(self, lease: Lease, control: Control) -> None:
        self.lease = lease
        self._lock = threading.Lock()
        self._control = control
        self._renewed = time.monotonic()
        self._drain_since: float | None = None
        self.heard(control, asked=self._renewed)

    def heard(self, control: Control, *, asked: float) -> Control:
        """An answer of the store: the lease is extended. Returns the bits that hold now: a mark to drain may be taken
        back, and what is answered to the newest question decides; the others stay once they were heard.

        ``asked`` is when the question was sent, in monotonic seconds. The lease may run from then on: a thread that
        waits for Python's lock reads the answer later, by seconds where the work holds the lock for so long.
        """
        with self._lock:
            drain = (control if asked >= self._renewed else self._control) & Control.DRAIN
            self._control = (self._control | control) & ~Control.DRAIN | drain
            self._renewed = max(self._renewed, asked)
            if not drain:
                self._drain_since = None
            elif self._drain_since is None:
                self._drain_since = time.monotonic()
            return self._control

    @property
    def control(self) -> Control:
        """The bits that hold now."""
        return self._control

    @property
    def renewed(self) -> float:
        """Since when the lease runs at least, in monotonic seconds."""
        return self._renewed

    @property
    def silent_s(self) -> float:
        """Seconds that the lease has run for at most."""
        return time.monotonic() - self._renewed

    def drained_s(self) -> float | None:
        """Seconds since the group was told to drain, or ``None``."""
        return None if self._drain_since is None else time.monotonic() - self._drain_since


class LeaseRenewer:
    """Renews, refreshes and watches. ``on_break`` is called once, when the group cannot go on."""

    def __init__(
        self,
        queue: WorkQueue,
        config: GangConfig,
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
        self._holds: dict[TaskId, HeldLease] = {}
        self._peers: Peers | None = None
        self._refreshed = 0.0
        self._ended = threading.Event()
        self._broken = False
        self._reachable = True
        self._thread = threading.Thread(target=self._watch, name="keeper", daemon=True)
        self.drain = False
        """Whether the store has marked the group as draining."""

    def start(self) -> None:
        """Begin."""
        if self._watchdog is not None:
            self._watchdog.start()
            self._watchdog.record(self._record)
        self._thread.start()

    def stop(self) -> None:
        """End, and wait until the last call to the store is over."""
        self._ended.set()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=30)
        if self._watchdog is not None:
            self._watchdog.stop()

    @property
    def record(self) -> GroupRecord:
        """The group as the store is told of it."""
        return self._record

    @property
    def ttl_s(self) -> float:
        """How long the group's record outlives the group."""
        return self._config.lease_s

    def update(self, *, now: bool = True, **changes: Any) -> GroupRecord:
        """Change the record; with ``now``, the store is told at once, when it can be reached."""
        with self._lock:
            if any(changes.get(name, was) != was for name, was in self._at()):
                changes.setdefault("since_ms", time.time_ns() // 1_000_000)
            self._record = replace(self._record, **changes)
            if self._watchdog is not None:
                self._watchdog.record(self._record)
        if now:
            self.refresh()
        return self._record

    def _at(self) -> tuple[tuple[str, str], ...]:
        """What a person watches it go through: ``since`` counts from its last change."""
        return (("state", self._record.state), ("phase", self._record.phase))

    def watch(self, peers: Peers) -> None:
        """WatchdogLoop the other ranks from now on."""
        self._peers = peers

    def hold(self, hold: HeldLease) -> None:
        """Keep this lease too from now on."""
        with self._lock:
            self._holds = {**self._holds, hold.lease.task: hold}
            if self._watchdog is not None:
                self._watchdog.hold(hold.lease, renewed=self._renewed())

    def drop(self, task: TaskId) -> None:
        """The lease of this task is kept no more."""
        with self._lock:
            self._holds = {held: hold for held, hold in self._holds.items() if held != task}
            if self._watchdog is not None:
                self._watchdog.drop(task)

    def _renewed(self) -> float:
        """Since when the oldest of the leases runs at least; 0 where there is none."""
        return min((hold.renewed for hold in self._holds.values()), default=0.0)

    def refresh(self) -> None:
        """Tell the store of the group. What goes wrong is logged and tried again later."""
        self._refreshed = time.monotonic()
        try:
            answer = self._queue.group(self._record, ttl_s=self.ttl_s)
        except StoreError as exc:
            self._log_unreachable(exc)
            return
        self._log_reachable()
        self.drain = answer.drain

    def _watch(self) -> None:
        while not self._ended.wait(_LOOK_S):
            why = self._why_broken()
            if why is not None and not self._broken:
                self._broken = True
                self._on_break(why)
                return
            for hold in self._holds.values():
                if hold.silent_s >= self._config.renew_s and not hold.control & Control.STALE:
                    self._renew(hold)
            if time.monotonic() - self._refreshed >= self.ttl_s / 3:
                self.refresh()
            if self._watchdog is not None:
                self._watchdog.start()
                self._watchdog.page.write(renewed=self._renewed(), refreshed=self._refreshed)

    def _why_broken(self) -> Failed | None:
        stall = self._heartbeat.stalled()
        if stall is not None:
            return Failed(code="stalled", message=stall, reason="stalled")
        trouble = self._peers.trouble() if self._peers is not None else None
        if trouble is not None:
            return Failed(
                code=trouble.code or "rank_lost", message=trouble.message, permanent=trouble.permanent
            )
        return None

    def _renew(self, hold: HeldLease) -> None:
        asked = time.monotonic()
        try:
            hold.heard(self._queue.renew(hold.lease), asked=asked)
        except StoreError as exc:
            self._log_unreachable(exc)
        else:
            self._log_reachable()

    def _log_unreachable(self, exc: Exception) -> None:
        if self._reachable:
            _log.warning("the store cannot be reached, the work goes on: %s", exc)
        self._reachable = False

    def _log_reachable(self) -> None:
        if not self._reachable:
            _log.info("the store can be reached again")
        self._reachable = True


IDLE_STATE = {True: GroupState.DRAINING, False: GroupState.IDLE}
"""The state of a group without a task, by whether it drains."""
