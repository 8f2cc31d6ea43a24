"""The causes of Kubernetes' refusals.

Where an object has a field for the cause, the module ``parse`` reads the field. But no field says why the API server
refused a pod: an exceeded quota and a missing permission are both ``Forbidden``, and KubeRay only passes the text on.
So this module looks for the fixed parts of such messages, and of messages of the kubelet and the scheduler. No other
module does that.
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
    """The cause that a message of the API server or a kubelet names; ``None`` if unknown."""
    for parts, reason in _FIXED:
        if all(part in message for part in parts):
            return Cause(reason=reason, message=message)
    return None


def refusal(message: str) -> Cause:
    """The cause for which a RayCluster or one of its pods was refused."""
    return known(message) or Cause(reason=Reason.RAYCLUSTER_REFUSED, message=message)


def why_unscheduled(message: str) -> str:
    """``VolumeNotReady`` if the message is about a volume, otherwise ``Unschedulable``. The scheduler gives one reason
    for both."""
    return NO_VOLUME if "volume" in message.lower() else UNSCHEDULABLE
