"""A pool's monotonic totals of streaming sessions, as the scripts count them (``adapters/redis/lua/_sessions.lua``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from daybreak_server.domain import policy
from daybreak_server.domain.pool_totals import HistogramTotals, PoolTotals
from daybreak_server.domain.sessions import SessionEnd

REFUSALS = ("limit", "lag")
"""Why a pool refuses a session: its limit, or the lag of its groups."""
MOVES = ("released", "lease_lost", "left", "restarted")
"""Why a session lost its group: the group released it, lost the lease on it, ended, or started again."""
WAITS = ("new", "moved")
"""The sessions that wait for a group: those that were just opened, and those that have lost their group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionTotals:
    """The sessions of a pool, counted since its first session."""

    opened: int
    refused: Mapping[str, int]
    moved: Mapping[str, int]
    ended: Mapping[str, int]
    seconds: float
    """The sum of the times for which the ended sessions were open."""
    waits: Mapping[str, HistogramTotals]
    """How long sessions waited for a group, in seconds. A wait is counted when a group takes the session."""

    @classmethod
    def of(cls, totals: PoolTotals) -> SessionTotals:
        """The totals of sessions among the totals of a pool."""
        return cls(
            opened=totals.total("sessions_opened"),
            refused={why: totals.total(f"sessions_refused:{why}") for why in REFUSALS},
            moved={why: totals.total(f"sessions_moved:{why}") for why in MOVES},
            ended={end.value: totals.total(f"sessions_ended:{end.value}") for end in SessionEnd},
            seconds=totals.total("sessions_ms") / 1000,
            waits={
                which: totals.histogram(f"session_wait:{which}", policy.WAIT_BUCKETS_MS, unit=1000)
                for which in WAITS
            },
        )
