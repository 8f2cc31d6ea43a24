"""A small process beside the leader that keeps the lease when the leader's own threads cannot run.

A library that holds Python's lock for longer than the lease (one long call in C) stops the keeper too, although
the work advances. So the leader's pulse is mirrored in a page of shared memory, and a process of its own looks at
it: while the work is within its limit, it renews what the keeper is late with; a leader that stands still for
longer is killed, and its task is a strike. A leader that dies without a word is a strike at once, not only when its
lease is over. The guard holds nothing else, ends with the leader, and can itself be lost at any time.

A leader that was *stopped* (SIGSTOP) is not working, so nothing is renewed for it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import mmap
import os
import selectors
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from daybreak_server.domain.ids import GroupId, TaskId, Token
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.serving import Load
from daybreak_server.domain.tasks import Control, Failed, Lease
from daybreak_server.ports.queue import WorkQueue
from daybreak_server.ports.store_errors import StoreError

_log = logging.getLogger(__name__)
_LOOK_S = 0.25
_MARGIN_S = 3.0
"""How much longer than the leader's own keeper the guard waits before it calls a stall a stall."""
_READY_S = 30.0
_LATE = 1.25
"""Renew when so many of the keeper's periods have passed. What is then left of a short lease is still more than one
tick may take from it after a stall."""


# ── the page ─────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatSnapshot:
    """What the page says. Times are of the monotonic clock, which all processes of a machine share."""

    beat: float = 0.0
    """When the work last advanced."""
    limit_s: float = 0.0
    """How long it may take to advance again."""
    renewed: float = 0.0
    """When the leases were last extended: of several, when the one that has waited longest was."""
    refreshed: float = 0.0
    """When the group's record was last refreshed."""
    what: str = ""
    """What it is at."""


_FORM = struct.Struct("=QddddQ32s")
_GUARD = struct.Struct("=d")
"""Behind it: when the guard last looked, written by the guard."""
_LEASE = struct.Struct("=QI1012sQ")
"""Behind that, in slots: the leases that the leader holds, each as JSON. They change with each task, so no message
tells of them. A slot of size 0 is free."""
_LEASES_AT = _FORM.size + _GUARD.size
LEASES_MAX = 64  # tasks that a leader can hold at once
_SIZE = _LEASES_AT + LEASES_MAX * _LEASE.size


class SharedHeartbeat:
    """The shared page. The leader writes it, the guard reads it; a torn reading is read again."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, _SIZE)
        self._lock = threading.Lock()
        self._turn = 0
        self._now: dict[str, Any] = asdict(HeartbeatSnapshot())
        self._slots: dict[TaskId, int] = {}  # of the leader: where each lease stands

    @classmethod
    def create(cls) -> SharedHeartbeat:
        """A page that a child process may inherit by its descriptor."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("daybreak-pulse")
        else:
            with tempfile.TemporaryFile(prefix="daybreak-pulse-") as file:
                fd = os.dup(file.fileno())
        os.truncate(fd, _SIZE)
        return cls(fd)

    def write(self, **changes: Any) -> None:
        """Change some of it. The one call that packs it holds Python's lock, so it is done whole or not at all."""
        with self._lock:
            now = self._now
            now.update(changes)
            self._turn += 1
            what = str(now["what"]).encode()[:32]
            _FORM.pack_into(
                *(self._map, 0, self._turn, now["beat"], now["limit_s"], now["renewed"], now["refreshed"]),
                *(self._turn, what),
            )

    def read(self) -> HeartbeatSnapshot | None:
        """What it says, or ``None`` where it cannot be read now."""
        for _ in range(100):
            data = self._map[: _FORM.size]
            begin, beat, limit_s, renewed, refreshed, end, what = _FORM.unpack(data)
            if begin == end and data == self._map[: _FORM.size]:
                name = what.rstrip(b"\0").decode(errors="replace")
                return HeartbeatSnapshot(
                    beat=beat, limit_s=limit_s, renewed=renewed, refreshed=refreshed, what=name
                )
        return None

    def hold(self, lease: Lease) -> None:
        """Show this lease, in place of an earlier one of its task. :raises ValueError: when there is no room for it."""
        data = json.dumps([lease.task, lease.token, lease.group, lease.lease_s]).encode()
        if len(data) > 1012:
            raise ValueError(f"the lease of {lease.task} has {len(data)} bytes; a slot has 1012")
        with self._lock:
            slot = self._slots.get(lease.task)
            if slot is None:
                free = set(range(LEASES_MAX)).difference(self._slots.values())
                if not free:
                    raise ValueError(
                        f"{lease.task} is one too many: a leader holds {LEASES_MAX} leases at most"
                    )
                slot = min(free)
            self._fill(slot, data)
            self._slots[lease.task] = slot

    def drop(self, task: TaskId) -> None:
        """The lease of this task is held no more."""
        with self._lock:
            if task in self._slots:
                self._fill(self._slots.pop(task), b"")

    def _fill(self, slot: int, data: bytes) -> None:
        self._turn += 1
        at = _LEASES_AT + slot * _LEASE.size
        _LEASE.pack_into(self._map, at, self._turn, len(data), data, self._turn)

    def held(self) -> tuple[Lease, ...]:
        """The leases that are held; one that cannot be read now is left out."""
        found = (self._slot(_LEASES_AT + slot * _LEASE.size) for slot in range(LEASES_MAX))
        return tuple(lease for lease in found if lease is not None)

    def _slot(self, at: int) -> Lease | None:
        for _ in range(100):
            data = self._map[at : at + _LEASE.size]
            begin, size, text, end = _LEASE.unpack(data)
            if begin == end and data == self._map[at : at + _LEASE.size]:
                if not size:
                    return None
                task, token, group, lease_s = json.loads(text[:size])
                return Lease(task=TaskId(task), token=Token(token), group=GroupId(group), lease_s=lease_s)
        return None

    def look(self) -> None:
        """The guard is there."""
        _GUARD.pack_into(self._map, _FORM.size, time.monotonic())

    @property
    def looked(self) -> float:
        """When the guard last looked; 0 before it first did."""
        return float(_GUARD.unpack_from(self._map, _FORM.size)[0])

    def close(self) -> None:
        """Let it go."""
        self._map.close()
        os.close(self.fd)


# ── the leader's side ────────────────────────────────────────────────────────────────────────────────────


class Watchdog:
    """Starts the guard's process, and starts it again when it is lost. Nothing here fails the leader."""

    def __init__(self, command: Sequence[str], *, told: Mapping[str, Any]) -> None:
        """``command`` is the program, which reads ``told`` (with the page's descriptor) as its first line."""
        self.page = SharedHeartbeat.create()
        self._command = list(command)
        self._told = dict(told)
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._record: GroupRecord | None = None

    def start(self) -> None:
        """Start it, or start it again where it has ended."""
        with self._lock:
            if self._process is not None and self._process.poll() is None:
                return
            first = {**self._told, "page": self.page.fd, "leader": os.getpid()}
            try:
                self._process = subprocess.Popen(
                    self._command, stdin=subprocess.PIPE, pass_fds=(self.page.fd,), start_new_session=True
                )
            except OSError as exc:
                _log.warning("there is no guard: %s", exc)
                return
            self._say(first)
            if self._record is not None:
                self._say({"record": asdict(self._record)})

    def wait_ready(self, timeout_s: float = _READY_S) -> None:
        """Wait until it looks: a task may hold the lock from its first step on. It may also never come."""
        end = time.monotonic() + timeout_s
        while not self.page.looked and time.monotonic() < end:
            time.sleep(0.01)

    def hold(self, lease: Lease, *, renewed: float) -> None:
        """Watchdog this lease too from now on. ``renewed``: since when the oldest of all runs at least."""
        self.page.write(renewed=renewed)
        self.page.hold(lease)

    def drop(self, task: TaskId) -> None:
        """Watchdog the lease of this task no more."""
        self.page.drop(task)

    def record(self, record: GroupRecord) -> None:
        """The group as the store is told of it. That it takes or ends a task, the page shows."""
        with self._lock:
            before, self._record = self._record, record
            if before is None or without_task(before) != without_task(record):
                self._say({"record": asdict(record)})

    def stop(self) -> None:
        """End it."""
        with self._lock:
            process, self._process = self._process, None
            if process is None or process.stdin is None:
                return
            with contextlib.suppress(OSError):
                process.stdin.write(b'{"bye": true}\n')
                process.stdin.close()
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _say(self, line: Mapping[str, Any]) -> None:
        process = self._process
        if process is None or process.stdin is None:
            return
        with contextlib.suppress(OSError, ValueError):
            process.stdin.write(json.dumps(line).encode() + b"\n")
            process.stdin.flush()


# ── the guard's side ─────────────────────────────────────────────────────────────────────────────────────


class WatchdogLoop:
    """The guard's loop."""

    def __init__(self, queue: WorkQueue, page: SharedHeartbeat, *, leader: int, lease_s: float) -> None:
        self._queue = queue
        self._page = page
        self._leader = leader
        self._lease_s = lease_s
        self._stale: set[Token] = set()
        self._record: GroupRecord | None = None
        self._bye = False
        self._renewed = self._refreshed = time.monotonic()

    def hear(self, line: Mapping[str, Any]) -> None:
        """A line of the leader's."""
        self._bye = self._bye or "bye" in line
        if line.get("record") is not None:
            fields = dict(line["record"])
            fields |= {"state": GroupState(fields["state"]), "id": GroupId(fields["id"])}
            fields |= {name: tuple(fields[name]) for name in ("tasks", "hosts", "pids", "models")}
            fields["load"] = fields["load"] and Load(**fields["load"])
            self._record = GroupRecord(**fields)

    def look(self) -> bool:
        """Look once, and do what is due. ``False``: the leader is gone, or was killed here."""
        if os.getppid() != self._leader:
            self.on_leader_exit()
            return False
        self._page.look()
        sight, now = self._page.read(), time.monotonic()
        if sight is None or not sight.beat:
            return True
        silent = now - sight.beat
        if silent > sight.limit_s + _MARGIN_S:
            self._end(f"no progress in {sight.what} for {silent:.1f} s (the limit is {sight.limit_s:g} s)")
            return False
        if not is_stopped(self._leader):
            self._keep(sight, now)
        return True

    def _keep(self, sight: HeartbeatSnapshot, now: float) -> None:
        period, leases = self._lease_s / 3, self._leases()
        try:
            if leases and now - max(sight.renewed, self._renewed) >= period * _LATE:
                for lease in leases:
                    if self._queue.renew(lease) & Control.STALE:
                        self._stale.add(lease.token)
                self._renewed = now
            if self._record is not None and now - max(sight.refreshed, self._refreshed) >= period * _LATE:
                self._queue.group(with_lease(self._record, leases), ttl_s=self._lease_s)
                self._refreshed = now
        except StoreError as exc:
            _log.debug("cannot renew, and try again at the next look: %s", exc)

    def _leases(self) -> tuple[Lease, ...]:
        """What the leader holds, but for what is another's by now."""
        held = self._page.held()
        self._stale.intersection_update(lease.token for lease in held)
        return tuple(lease for lease in held if lease.token not in self._stale)

    def _end(self, why: str) -> None:
        """The leader cannot end itself any more."""
        _log.error("killing process %d: %s", self._leader, why)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._leader, signal.SIGKILL)
        self._give_up(Failed(code="stalled", message=why, reason="stalled"))

    def on_leader_exit(self) -> None:
        """The leader is gone. If it had said nothing, what it held is lost now, not when its lease is over."""
        if not self._bye:
            self._bye = True
            self._give_up(
                Failed(code="rank_lost", message=f"rank 0 is gone: process {self._leader} has died")
            )

    def _give_up(self, why: Failed) -> None:
        """Settle for the leader; what it has settled itself stays as it is, for the token is the same."""
        try:
            for lease in self._leases():
                self._queue.settle(lease, why)
            if self._record is not None:
                self._queue.leave(self._record)
        except StoreError as exc:
            _log.warning("what is not settled yet is left to its lease: %s", exc)


def without_task(record: GroupRecord) -> GroupRecord:
    """A group's record without what a task changes in it."""
    if record.state is GroupState.BUSY:
        record = replace(record, state=GroupState.IDLE)
    return replace(record, tasks=(), since_ms=0) if record.state is GroupState.IDLE else record


def with_lease(record: GroupRecord, leases: Sequence[Lease]) -> GroupRecord:
    """The record of a group that holds these leases."""
    if not record.state.accepts_tasks:
        return record
    state, tasks = GroupState.BUSY if leases else GroupState.IDLE, tuple(lease.task for lease in leases)
    return record if set(record.tasks) == set(tasks) else replace(record, state=state, tasks=tasks)


def is_stopped(pid: int) -> bool:
    """Whether a process was stopped by a signal; ``False`` also where nobody can say."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in ("T", "t")
    except (OSError, IndexError):
        return False


def serve(watch: WatchdogLoop, source: int, heard: bytes = b"") -> None:
    """Hear lines from descriptor ``source`` and look, until the leader is gone."""
    with selectors.DefaultSelector() as selector:
        selector.register(source, selectors.EVENT_READ)
        while True:
            *lines, heard = heard.split(b"\n")
            for line in lines:
                watch.hear(json.loads(line))
            if not watch.look():
                return
            if selector.select(_LOOK_S):
                data = os.read(source, 65536)
                if not data:
                    watch.on_leader_exit()
                    return
                heard += data


def first_line(source: int) -> tuple[dict[str, Any], bytes]:
    """What the guard is told first, and what came after it."""
    heard = b""
    while b"\n" not in heard:
        data = os.read(source, 65536)
        if not data:
            sys.exit(0)
        heard += data
    line, _, rest = heard.partition(b"\n")
    return json.loads(line), rest
