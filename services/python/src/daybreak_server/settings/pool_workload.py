"""The workload of a configured pool."""

from __future__ import annotations

from typing import Any

from daybreak_server.settings.tree import PoolSettings
from daybreak_server.workloads import discovery
from daybreak_server.workloads.base import WorkloadSpec


def workload_spec(pool: PoolSettings) -> WorkloadSpec[Any]:
    """The spec of the pool's workload.

    :raises UnknownWorkloadError: if the workload is not installed.
    :raises WrongKindError: if the pool has another kind than its workload, or settings that pools of this kind cannot
        have.
    """
    return discovery.spec(pool.workload, kind=pool.kind, not_for_jobs=pool.not_for_jobs, ranks=pool.ranks)
