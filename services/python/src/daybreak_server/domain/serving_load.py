"""The load figures that a serving group reports."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """How busy a serving group is, as it last reported."""

    in_flight: int = 0
    """Requests in progress."""
    waiting: int = 0
    """Requests that the group has accepted but not started."""
    sessions: int = 0
    """Open sessions."""
    free_memory_bytes: int | None = None
    """Free memory of the device with the least free memory."""

    @property
    def held(self) -> int:
        """Requests and sessions that would be lost with the group."""
        return self.in_flight + self.waiting + self.sessions
