"""The kinds of pools. The kind decides what the groups of a pool do, and so how they are built."""

from __future__ import annotations

from enum import StrEnum


class PoolKind(StrEnum):
    """The workload's spec sets the kind. Settings and the CRD may repeat it; then Daybreak checks that they agree."""

    JOBS = "jobs"
    """Groups pull tasks from the queue."""
    ONLINE = "online"
    """Groups answer requests."""
    SESSIONS = "sessions"
    """Groups serve streaming sessions."""
