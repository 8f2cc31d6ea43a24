"""The leader's client of its watchdog. It starts the watchdog's process, restarts it if it has died, and sends it data.

The lease renewer is a thread of the leader. It cannot run while a call in C holds Python's lock. Without a watchdog,
the lease would end during a long call, although the work advances. So a watchdog process runs beside each leader that
has a process of its own. The watchdog

* renews the leases and refreshes the group's record when the lease renewer is late with them;
* kills a leader that has stalled and did not end by itself, and settles its tasks as strikes with the reason
  ``stalled``;
* settles the tasks of a leader that died unannounced, as strikes (``rank_lost``), so that these tasks are retried
  before their leases end.

The watchdog gets its data on two channels: standard input and shared memory. The first line on standard input is its
configuration, which is not on the command line because it holds the store's password. Each later line is a new record
of the group. If the leader leaves normally, one last line says so. The leader sends a record only when something
other than its work has changed, so a new task costs no message. The heartbeat and the leases are in the shared memory
(:mod:`~daybreak_server.engines.common.shared_heartbeat`).

The watchdog has no state that must survive its death. When it dies, the lease renewer starts it again
(:meth:`Watchdog.start`), and the new process gets the configuration and the latest record. If
the watchdog cannot start, dies or does not answer, the leader works on: the lease renewer then renews the leases alone.
What the process does is in :mod:`~daybreak_server.engines.common.watchdog_process`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from daybreak_server.domain.ids import TaskId
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.tasks import Lease
from daybreak_server.engines.common.shared_heartbeat import SharedHeartbeat

_log = logging.getLogger(__name__)
_READY_S = 30.0


class Watchdog:
    """One leader's watchdog process. No method raises if the process is missing or does not answer."""

    def __init__(self, command: Sequence[str], *, config: Mapping[str, Any]) -> None:
        """Prepare the watchdog; :meth:`start` starts its process.

        :param command: The program. It reads ``config`` as its first line, with ``heartbeat_fd`` (the descriptor of
            the shared memory) and ``leader`` (this process's id) added.
        """
        self.shared = SharedHeartbeat.create()
        self._command = list(command)
        self._config = dict(config)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._record: GroupRecord | None = None

    def start(self) -> None:
        """Start the process, unless it is already running."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                return
            config = {**self._config, "heartbeat_fd": self.shared.fd, "leader": os.getpid()}
            try:
                self._process = subprocess.Popen(
                    self._command, stdin=subprocess.PIPE, pass_fds=(self.shared.fd,), start_new_session=True
                )
            except OSError as exc:
                _log.warning("the watchdog cannot be started, so the leader renews its leases alone: %s", exc)
                return
            self._send(config)
            if self._record is not None:
                self._send({"record": asdict(self._record)})

    def wait_ready(self, timeout_s: float = _READY_S) -> None:
        """Wait until the process has checked the leader once, or until the timeout.

        A task may hold Python's lock from its first step on, so the leader waits here before it claims a task.
        """
        end = time.monotonic() + timeout_s
        while not self.shared.polled_at and time.monotonic() < end:
            time.sleep(0.01)

    def hold(self, lease: Lease, *, renewed_at: float) -> None:
        """Watch one more lease.

        :param renewed_at: The time of the lease's last renewal. If the leader has several leases: the earliest of their
            last renewals.
        """
        self.shared.write(renewed_at=renewed_at)
        self.shared.hold(lease)

    def drop(self, task: TaskId) -> None:
        """Stop watching the lease of this task."""
        self.shared.drop(task)

    def record(self, record: GroupRecord) -> None:
        """Send the group's record if something other than its work has changed.

        The watchdog learns of the group's tasks from the shared memory.
        """
        with self._lock:
            before, self._record = self._record, record
            if before is None or without_task(before) != without_task(record):
                self._send({"record": asdict(record)})

    def stop(self) -> None:
        """Stop the process. The leader is leaving normally, so the watchdog settles nothing."""
        with self._lock:
            process, self._process = self._process, None
            if process is None or process.stdin is None:
                return
            with contextlib.suppress(OSError):
                process.stdin.write(b'{"leaving": true}\n')
                process.stdin.close()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _send(self, message: Mapping[str, Any]) -> None:
        process = self._process
        if process is None or process.stdin is None:
            return
        with contextlib.suppress(OSError, ValueError):
            process.stdin.write(json.dumps(message).encode() + b"\n")
            process.stdin.flush()


def without_task(record: GroupRecord) -> GroupRecord:
    """Return the record as it would be if the group had no work: fields that depend on work have their idle values."""
    record = replace(record, load=None)
    if record.state is GroupState.BUSY:
        record = replace(record, state=GroupState.IDLE)
    return replace(record, tasks=(), since_ms=0) if record.state is GroupState.IDLE else record
