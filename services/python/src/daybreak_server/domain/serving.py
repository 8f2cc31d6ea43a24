"""What a group that serves requests says of itself, beside what every group says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How busy a serving group is, as it last said."""

    in_flight: int = 0
    """Requests in work."""
    waiting: int = 0
    """Requests that it has taken and not begun."""
    sessions: int = 0
    """Sessions that it holds."""
    free_memory_bytes: int | None = None
    """Of its fullest device."""
