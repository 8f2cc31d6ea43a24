"""The heartbeat and the leases of a leader in shared memory, where its watchdog process reads them.

The memory has four parts, each with one writer:

* the state: the heartbeat (when the work last advanced, in which activity, within which limit), and when the leases
  were last renewed and the group's record was last refreshed. The leader writes it.
* one time: when the watchdog last polled. The watchdog writes it.
* :data:`MAX_LEASES` slots, each empty or with one lease that the leader holds, as JSON. The leader writes them. The
  leases are not sent to the watchdog as messages, because a message could be late: right after a claim, the leader
  may enter a long call in C.
* the streaming sessions that the model works on now, as JSON. The leader writes them before and after each batch. If
  the group dies, no other session can be the cause.

There is no lock between the two processes: a watchdog that died while it held one would block the leader. Instead, the
state, each slot and the sessions each hold two copies of a sequence number, and each write changes both copies. If a
reader sees two different numbers, or different bytes when it looks again, it has read in the middle of a write and
reads again.

All times are of the monotonic clock, which all processes of a machine share. A child process inherits the memory by
its file descriptor.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from daybreak_server.domain.ids import AttemptToken, GroupId, TaskId
from daybreak_server.domain.sessions import SessionId
from daybreak_server.domain.tasks import Lease

_STATE = struct.Struct("=QddddQ32s")
_WATCHDOG = struct.Struct("=d")
_LEASE_BYTES = 1012
_LEASE = struct.Struct(f"=QI{_LEASE_BYTES}sQ")
"""A slot: sequence number, size of the JSON (0 in an empty slot), the JSON, and the sequence number again."""
_LEASES_AT = _STATE.size + _WATCHDOG.size
MAX_LEASES = 64
"""How many leases of tasks a leader can hold at once."""
_SESSIONS_BYTES = 4076
_SESSIONS = struct.Struct(f"=QI{_SESSIONS_BYTES}sQ")
"""The same fields as in a slot. The ids of 32 sessions, the largest batch, take less than 2 KiB."""
_SESSIONS_AT = _LEASES_AT + MAX_LEASES * _LEASE.size
_SIZE = _SESSIONS_AT + _SESSIONS.size
_READS = 100
"""How many times a reader tries to read a state or slot that is being written, before it gives up for now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatSnapshot:
    """The state at one moment. Times are of the monotonic clock; 0 means never."""

    beat_at: float = 0.0
    """When the work last advanced."""
    limit_s: float = 0.0
    """How long the work may take to advance again."""
    renewed_at: float = 0.0
    """When the least recently renewed lease was renewed."""
    refreshed_at: float = 0.0
    """When the group's record was last refreshed."""
    activity: str = ""
    """What the work is doing."""


class SharedHeartbeat:
    """The shared memory. The leader writes it, and the watchdog reads it. Only ``polled_at`` goes the other way."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self._map = mmap.mmap(fd, _SIZE)
        self._lock = threading.Lock()
        self._sequence = 0
        self._state: dict[str, Any] = asdict(HeartbeatSnapshot())
        self._slots: dict[TaskId, int] = {}  # the leader's own index: which slot has a task's lease

    @classmethod
    def create(cls) -> SharedHeartbeat:
        """Create the memory, with a descriptor that a child process may inherit."""
        if hasattr(os, "memfd_create"):
            fd = os.memfd_create("daybreak-heartbeat")
        else:
            with tempfile.TemporaryFile(prefix="daybreak-heartbeat-") as file:
                fd = os.dup(file.fileno())
        os.truncate(fd, _SIZE)
        return cls(fd)

    def write(self, **changes: Any) -> None:
        """Change fields of the state.

        A single C call packs all fields. It holds Python's GIL, so no other thread runs in the middle of a write.
        """
        with self._lock:
            state = self._state
            state.update(changes)
            self._sequence += 1
            activity = str(state["activity"]).encode()[:32]
            times = (state["beat_at"], state["limit_s"], state["renewed_at"], state["refreshed_at"])
            _STATE.pack_into(self._map, 0, self._sequence, *times, self._sequence, activity)

    def read(self) -> HeartbeatSnapshot | None:
        """Return the state, or ``None`` if it cannot be read now."""
        for _ in range(_READS):
            data = self._map[: _STATE.size]
            begin, beat_at, limit_s, renewed_at, refreshed_at, end, activity = _STATE.unpack(data)
            if begin == end and data == self._map[: _STATE.size]:
                return HeartbeatSnapshot(
                    beat_at=beat_at,
                    limit_s=limit_s,
                    renewed_at=renewed_at,
                    refreshed_at=refreshed_at,
                    activity=activity.rstrip(b"\0").decode(errors="replace"),
                )
        return None

    def hold(self, lease: Lease) -> None:
        """Show the watchdog this lease, in place of an earlier lease of the same task.

        :raises ValueError: if the lease is too large, or every slot is taken.
        """
        data = json.dumps([lease.task, lease.token, lease.group, lease.lease_s]).encode()
        if len(data) > _LEASE_BYTES:
            raise ValueError(f"the lease of {lease.task} has {len(data)} bytes; a slot has {_LEASE_BYTES}")
        with self._lock:
            slot = self._slots.get(lease.task)
            if slot is None:
                free = set(range(MAX_LEASES)).difference(self._slots.values())
                if not free:
                    raise ValueError(
                        f"no slot is free for the lease of {lease.task}: "
                        f"a leader holds at most {MAX_LEASES} leases"
                    )
                slot = min(free)
            self._fill(slot, data)
            self._slots[lease.task] = slot

    def drop(self, task: TaskId) -> None:
        """Remove the lease of this task, if there is one."""
        with self._lock:
            if task in self._slots:
                self._fill(self._slots.pop(task), b"")

    def _fill(self, slot: int, data: bytes) -> None:
        self._sequence += 1
        offset = _LEASES_AT + slot * _LEASE.size
        _LEASE.pack_into(self._map, offset, self._sequence, len(data), data, self._sequence)

    def held(self) -> tuple[Lease, ...]:
        """Return the leases that the leader holds, without any that cannot be read now."""
        leases = (self._read_slot(slot) for slot in range(MAX_LEASES))
        return tuple(lease for lease in leases if lease is not None)

    def _read_slot(self, slot: int) -> Lease | None:
        offset = _LEASES_AT + slot * _LEASE.size
        for _ in range(_READS):
            data = self._map[offset : offset + _LEASE.size]
            begin, size, text, end = _LEASE.unpack(data)
            if begin == end and data == self._map[offset : offset + _LEASE.size]:
                if not size:
                    return None
                task, token, group, lease_s = json.loads(text[:size])
                return Lease(
                    task=TaskId(task), token=AttemptToken(token), group=GroupId(group), lease_s=lease_s
                )
        return None

    def work_on(self, sessions: Sequence[SessionId]) -> None:
        """Show the watchdog the streaming sessions that the model works on from now on."""
        data = json.dumps(sessions).encode()
        with self._lock:
            self._sequence += 1
            _SESSIONS.pack_into(self._map, _SESSIONS_AT, self._sequence, len(data), data, self._sequence)

    def worked_on(self) -> tuple[SessionId, ...] | None:
        """Return the sessions that the model works on, or ``None`` if they cannot be read now."""
        for _ in range(_READS):
            data = self._map[_SESSIONS_AT:_SIZE]
            begin, size, text, end = _SESSIONS.unpack(data)
            if begin == end and data == self._map[_SESSIONS_AT:_SIZE]:
                return tuple(SessionId(session) for session in json.loads(text[:size])) if size else ()
        return None

    def mark_polled(self) -> None:
        """Record that the watchdog polls now."""
        _WATCHDOG.pack_into(self._map, _STATE.size, time.monotonic())

    @property
    def polled_at(self) -> float:
        """When the watchdog last polled; 0 before its first poll."""
        return float(_WATCHDOG.unpack_from(self._map, _STATE.size)[0])

    def close(self) -> None:
        """Release the memory in this process."""
        self._map.close()
        os.close(self.fd)
