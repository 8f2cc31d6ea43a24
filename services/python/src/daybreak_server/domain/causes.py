"""Why something is wrong, as data: from whoever saw it to the operator and the page."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Causes that a rank, the store or the cluster reports. Stable, for programs; each has an entry in the runbooks.

    What only the operator can see (a head that is not ready, a name that is taken) has reasons of the operator's.
    """

    RANKS_FAIL = "RanksFail"
    """A rank ended; why is in the message alone."""
    MODEL_MISSING = "ModelMissing"
    """The model is not there, or is none that the workload can run."""
    MODEL_UNAVAILABLE = "ModelUnavailable"
    """The model cannot be fetched: its store refuses or cannot be reached."""
    ARTIFACTS_REFUSED = "ArtifactsRefused"
    """The store of files refuses what tasks make."""
    OUT_OF_MEMORY = "OutOfMemory"
    REDIS_REFUSED = "RedisRefused"
    REDIS_UNREACHABLE = "RedisUnreachable"
    RAYCLUSTER_REFUSED = "RayClusterRefused"
    """Kubernetes or KubeRay refuses the RayCluster or its pods, for another cause than those below."""
    QUOTA_EXCEEDED = "QuotaExceeded"
    POD_SECURITY_REFUSED = "PodSecurityRefused"
    ADMISSION_REFUSED = "AdmissionRefused"
    CONFIG_MISSING = "ConfigMissing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One cause. ``reason`` is for programs (a :class:`Reason`, or one of the operator's), ``message`` for people."""

    reason: str
    message: str

    def __str__(self) -> str:
        return self.message
