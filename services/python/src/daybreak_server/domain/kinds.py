"""The kinds of pools: what the groups of one do, and so how they are built."""

from __future__ import annotations

from enum import StrEnum


class PoolKind(StrEnum):
    """Owned by the spec of a pool's workload; settings and the CRD may name it, and then it is only checked."""

    JOBS = "jobs"
    """Groups pull tasks from the queue."""
