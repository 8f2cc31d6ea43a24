"""What a cluster keeps running (replicas), and the processes that faults can hit (targets)."""

from __future__ import annotations

from dataclasses import dataclass, field

from verification.faults.options import PoolOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A process that a fault can hit."""

    kind: str
    """``leader``, ``follower``, ``watchdog``, ``gateway`` or ``server``."""
    name: str
    pid: int


@dataclass(slots=True, kw_only=True)
class Replica:
    """One server, gateway or group, which the cluster restarts when it ends."""

    name: str
    kind: str
    pool: PoolOptions | None = None
    port: int = 0
    pids: dict[int, int] = field(default_factory=dict)
    """The pid of each rank; a server or gateway has only rank 0. Empty while it does not run."""
    starts: int = 0
    """How often it has started."""
    started: float = 0.0
    """The time of its last start, in monotonic seconds."""
