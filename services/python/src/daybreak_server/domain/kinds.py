"""The kinds of pools. The kind of a pool decides what its groups do, and therefore how a group is built."""

from __future__ import annotations

from enum import StrEnum


class PoolKind(StrEnum):
    """The workload's spec sets the kind. Daybreak checks that a kind in the settings or in the CRD is the same."""

    JOBS = "jobs"
    """Groups pull tasks from the queue."""
    ONLINE = "online"
    """Groups answer requests."""
    SESSIONS = "sessions"
    """Groups serve streaming sessions."""
