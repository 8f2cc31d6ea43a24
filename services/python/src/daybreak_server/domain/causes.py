"""Why something is wrong, as data that travels from the component that notices it to the operator and clients."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reason(StrEnum):
    """Stable codes for the causes that a rank, the store or the cluster reports. The runbooks explain each.

    The operator has further reasons for problems that only it sees: a head that is not ready, a name that is taken.
    """

    RANKS_FAIL = "RanksFail"
    """A rank ended; only the message says why."""
    MODEL_MISSING = "ModelMissing"
    """The model does not exist, or the workload cannot run it."""
    MODEL_UNAVAILABLE = "ModelUnavailable"
    """The model cannot be downloaded: its store refuses the request or cannot be reached."""
    ARTIFACTS_REFUSED = "ArtifactsRefused"
    """The blob store refuses the files of tasks."""
    OUT_OF_MEMORY = "OutOfMemory"
    REDIS_REFUSED = "RedisRefused"
    REDIS_UNREACHABLE = "RedisUnreachable"
    RAYCLUSTER_REFUSED = "RayClusterRefused"
    """Kubernetes or KubeRay refuses the RayCluster or its pods for a reason not listed below."""
    QUOTA_EXCEEDED = "QuotaExceeded"
    POD_SECURITY_REFUSED = "PodSecurityRefused"
    ADMISSION_REFUSED = "AdmissionRefused"
    CONFIG_MISSING = "ConfigMissing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cause:
    """One cause. ``reason`` is for programs (a :class:`Reason` or one of the operator's), ``message`` for people."""

    reason: str
    message: str

    def __str__(self) -> str:
        return self.message
