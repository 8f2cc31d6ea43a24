"""The watchdog process: watches one leader, and renews its leases when the leader's own threads cannot.

:mod:`~daybreak_server.engines.common.watchdog` explains why there is a watchdog, and how the leader starts it.

Every ``_POLL_S`` (0.25 s) the loop reads the shared heartbeat and decides:

1. The leader is not this process's parent any more: it has died. Unless it announced that it was leaving, its leases
   are settled as strikes (``rank_lost``) and its group is deregistered. Then the watchdog ends.
2. The heartbeat is older than its limit plus ``_MARGIN_S``: the leader has stalled. The leader's own lease renewer
   breaks the group as soon as the limit has passed, and the leader's process ends. If the process is still there, its
   threads probably cannot run. So the watchdog kills the process, settles its leases as strikes (``stalled``) and
   deregisters its group. Then the watchdog ends.
3. The leader was stopped by a signal (SIGSTOP): it does no work, so the watchdog renews nothing and the leases run out.
4. A renewal or the refresh of the group's record is late by a quarter of its period: the watchdog does it instead.

A leader and its watchdog may both renew or settle the same lease. That is safe: they have the same token, and a
repeated settlement changes nothing. When the store calls a token stale, the task belongs to another attempt, and the
watchdog no longer touches that lease.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import selectors
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from daybreak_server.domain.ids import AttemptToken, GroupId
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.serving_load import Load
from daybreak_server.domain.tasks import Control, Failed, Lease
from daybreak_server.engines.common.shared_heartbeat import HeartbeatSnapshot, SharedHeartbeat
from daybreak_server.ports.queue import WorkQueue
from daybreak_server.ports.store_errors import StoreError

_log = logging.getLogger(__name__)
_POLL_S = 0.25
_MARGIN_S = 3.0
"""How much longer the watchdog waits than the leader's own lease renewer, before it treats silence as a stall."""
_LATE = 1.25
"""The watchdog renews when this many periods of the lease renewer have passed without a renewal. Even a short lease
then has enough time left, because one tick of the gateways ages leases by at most ``policy.LEASE_STEP_MS``."""


class WatchdogLoop:
    """Watches one leader: :meth:`on_message` handles the leader's messages, and :meth:`poll` does what is due."""

    def __init__(self, queue: WorkQueue, shared: SharedHeartbeat, *, leader: int, lease_s: float) -> None:
        self._queue = queue
        self._shared = shared
        self._leader = leader
        self._lease_s = lease_s
        self._stale: set[AttemptToken] = set()
        self._record: GroupRecord | None = None
        self._leaving = False
        self._renewed_at = self._refreshed_at = time.monotonic()

    def on_message(self, message: Mapping[str, Any]) -> None:
        """Handle a message from the leader: its group's record, or the announcement that it leaves."""
        self._leaving = self._leaving or "leaving" in message
        if message.get("record") is not None:
            fields = dict(message["record"])
            fields |= {"state": GroupState(fields["state"]), "id": GroupId(fields["id"])}
            fields |= {name: tuple(fields[name]) for name in ("tasks", "hosts", "pids", "models")}
            fields["load"] = fields["load"] and Load(**fields["load"])
            self._record = GroupRecord(**fields)

    def poll(self) -> bool:
        """Check the leader once and do what is due. Returns ``False`` if the leader has died or was killed here."""
        if os.getppid() != self._leader:
            self.on_leader_exit()
            return False
        self._shared.mark_polled()
        heartbeat, now = self._shared.read(), time.monotonic()
        if heartbeat is None or not heartbeat.beat_at:
            return True
        silent_s = now - heartbeat.beat_at
        if silent_s > heartbeat.limit_s + _MARGIN_S:
            self._kill_leader(
                f"no progress in {heartbeat.activity} for {silent_s:.1f} s "
                f"(the limit is {heartbeat.limit_s:g} s)"
            )
            return False
        if not is_stopped(self._leader):
            self._renew_late(heartbeat, now)
        return True

    def _renew_late(self, heartbeat: HeartbeatSnapshot, now: float) -> None:
        late_s, leases = self._lease_s / 3 * _LATE, self._leases()
        try:
            if leases and now - max(heartbeat.renewed_at, self._renewed_at) >= late_s:
                for lease in leases:
                    if self._queue.renew(lease) & Control.STALE:
                        self._stale.add(lease.token)
                self._renewed_at = now
            if self._record is not None and now - max(heartbeat.refreshed_at, self._refreshed_at) >= late_s:
                self._queue.register(with_leases(self._record, leases), ttl_s=self._lease_s)
                self._refreshed_at = now
        except StoreError as exc:
            _log.debug("the store cannot be reached; the next poll retries: %s", exc)

    def _leases(self) -> tuple[Lease, ...]:
        """Return the leases that the leader holds, without those that the store has called stale."""
        held = self._shared.held()
        self._stale.intersection_update(lease.token for lease in held)
        return tuple(lease for lease in held if lease.token not in self._stale)

    def _kill_leader(self, message: str) -> None:
        """Kill a leader that has stalled and has not ended by itself."""
        _log.error("killing the leader (process %d): %s", self._leader, message)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._leader, signal.SIGKILL)
        self._settle_leases(Failed(code="stalled", message=message, reason="stalled"))

    def on_leader_exit(self) -> None:
        """Settle the tasks of the dead leader as strikes, unless it had announced that it leaves."""
        if not self._leaving:
            self._leaving = True
            self._settle_leases(
                Failed(code="rank_lost", message=f"rank 0 is gone: process {self._leader} has died")
            )

    def _settle_leases(self, failed: Failed) -> None:
        """Settle the leader's tasks. If the leader has already settled a task, the task keeps its outcome."""
        try:
            for lease in self._leases():
                self._queue.settle(lease, failed)
            if self._record is not None:
                self._queue.deregister_dead(self._record, worked_on=self._shared.worked_on())
        except StoreError as exc:
            _log.warning(
                "tasks of the leader are not settled, and are retried when their leases end: %s", exc
            )


def with_leases(record: GroupRecord, leases: Sequence[Lease]) -> GroupRecord:
    """Return ``record`` with the state and tasks of a group that holds ``leases``."""
    if not record.state.accepts_tasks:
        return record
    state, tasks = GroupState.BUSY if leases else GroupState.IDLE, tuple(lease.task for lease in leases)
    return record if set(record.tasks) == set(tasks) else replace(record, state=state, tasks=tasks)


def is_stopped(pid: int) -> bool:
    """Return whether a signal has stopped the process; ``False`` if the state of the process cannot be read."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
    except (OSError, IndexError):
        return False


def read_config(source: int) -> tuple[dict[str, Any], bytes]:
    """Read the configuration, which is the first line, and return it with the bytes that came after it."""
    received = b""
    while b"\n" not in received:
        data = os.read(source, 65536)
        if not data:
            sys.exit(0)
        received += data
    line, _, rest = received.partition(b"\n")
    return json.loads(line), rest


def run(loop: WatchdogLoop, source: int, received: bytes = b"") -> None:
    """Read messages from descriptor ``source`` and poll, until the leader is gone.

    :param received: Bytes that :func:`read_config` has read beyond the configuration.
    """
    with selectors.DefaultSelector() as selector:
        selector.register(source, selectors.EVENT_READ)
        while True:
            *lines, received = received.split(b"\n")
            for line in lines:
                loop.on_message(json.loads(line))
            if not loop.poll():
                return
            if selector.select(_POLL_S):
                data = os.read(source, 65536)
                if not data:
                    loop.on_leader_exit()
                    return
                received += data
