"""A group's configuration, which comes from its pool's settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from daybreak_server.domain import policy


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupConfig:
    """A group's configuration; all durations are in seconds."""

    pool: str
    ranks: int = 1
    device: str = "cpu"
    threads: int = 1
    """torch's CPU threads in each rank."""
    options: Mapping[str, Any] = field(default_factory=dict)
    scratch: Path | None = None
    """The folder in which attempts get their scratch folders. ``None`` means the system's temporary folder."""
    lease_s: float = policy.LEASE_S
    stall_s: float = policy.STALL_S
    load_stall_s: float = policy.LOAD_STALL_S
    checkpoint_s: float = 60.0
    progress_s: float = 0.25
    drain_s: float = 30.0
    start_s: float = 600.0
    """How long the ranks of a group wait for each other when the group forms."""
    grace_s: float = 5.0
    """After a rank has failed at a point of agreement, the other ranks must reach that point in this time. If one is
    late, the group breaks."""
    idle_s: float = 2.0
    """How long one claim waits for a task."""
    ping_s: float = 20.0
    """How often an idle leader sends its followers a no-op."""
    preview_ttl_s: float = 3600.0
    capacity: int = 1
    """The maximum number of requests that a serving group holds at once."""
    bulk_max_bytes: int = 1 << 30
    """The maximum size of the input file of a task that a serving group runs."""
    bulk_max_line_bytes: int = 1 << 20
    bulk_max_lines: int = 1_000_000
    ports: Sequence[int] = (0,)
    """The ports at which the leader of a serving group may listen. 0 means any free port."""

    sessions: Mapping[str, Any] = field(default_factory=dict)
    """The pool's setting ``sessions``, if its groups serve sessions."""

    @property
    def renew_s(self) -> float:
        """The time between two renewals of the lease."""
        return self.lease_s / 3
