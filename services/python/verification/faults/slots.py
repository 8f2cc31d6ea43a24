"""The places in a cluster that processes fill, and the processes that faults can hit."""

from __future__ import annotations

from dataclasses import dataclass, field

from verification.faults.options import PoolPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A process that a fault can hit."""

    kind: str
    """``leader``, ``follower``, ``watchdog``, ``gateway`` or ``server``."""
    name: str
    pid: int


@dataclass(slots=True, kw_only=True)
class Slot:
    """The place of one process, or of the ranks of one group."""

    name: str
    kind: str
    pool: PoolPlan | None = None
    port: int = 0
    pids: dict[int, int] = field(default_factory=dict)
    incarnation: int = 0
    started: float = 0.0
