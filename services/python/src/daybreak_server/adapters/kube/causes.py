"""What Kubernetes refuses, as causes.

Where an object has a field for it, ``views`` reads the field. Why the API server would not have a pod is in no field:
a quota and a right that is missing are both ``Forbidden``, and KubeRay passes only the text on. So the fixed parts of
the API server's messages are looked for, here and nowhere else.
"""

from __future__ import annotations

from daybreak_server.domain.causes import Cause, Reason

_FIXED: tuple[tuple[tuple[str, ...], Reason], ...] = (
    (("exceeded quota",), Reason.QUOTA_EXCEEDED),
    (("violates PodSecurity",), Reason.POD_SECURITY_REFUSED),
    (("admission webhook", "denied"), Reason.ADMISSION_REFUSED),
    (('secret "', "not found"), Reason.CONFIG_MISSING),
    (('configmap "', "not found"), Reason.CONFIG_MISSING),
)
UNSCHEDULABLE, NO_VOLUME = "Unschedulable", "VolumeNotReady"


def known(message: str) -> Cause | None:
    """The cause that a message of the API server or a kubelet tells of; ``None`` where it is not known."""
    for parts, reason in _FIXED:
        if all(part in message for part in parts):
            return Cause(reason=reason, message=message)
    return None


def refusal(message: str) -> Cause:
    """Why a RayCluster or a pod of it was refused."""
    return known(message) or Cause(reason=Reason.RAYCLUSTER_REFUSED, message=message)


def why_unscheduled(message: str) -> str:
    """The scheduler has one reason for all; a volume that is not there is no node that is missing."""
    return NO_VOLUME if "volume" in message.lower() else UNSCHEDULABLE
