"""The headers with which gateways, groups and workers agree on what happens to a request, and the reasons of a refusal.

Names are in lower case, as ASGI gives them. HTTP ignores the case of a name.
"""

from __future__ import annotations

from enum import StrEnum

DEADLINE_HEADER = "daybreak-deadline-s"
"""The seconds that were left for the answer when the request was sent."""
SESSION_HEADER = "daybreak-session"
"""If requests are routed by ``session``, requests with the same value go to the same group."""
GROUP_HEADER = "daybreak-group"
"""In a request, the id of the group for which the request is meant. This group may have ended, and another one may use
its address. In an answer, the group that answered."""
REFUSED_HEADER = "daybreak-refused"
"""A header of a refusal. Its value is a :class:`Refusal`. A gateway may then try another group or worker."""
BROKE_HEADER = "daybreak-broke"
"""A header of the answer 502 that a worker sends if its engine broke before the first byte of an answer. The engine may
have begun to work on the request."""
CLIENT_GONE = 499
"""The status, in metrics and logs, of a request whose client did not wait for the answer."""


class Refusal(StrEnum):
    """Why a group or a worker refuses a request: the value of the header ``Daybreak-Refused``.

    After ``busy``, a group or worker gets requests again after a pause. After any other reason, a gateway sends it no
    more requests until a later view of the store says that it takes requests. The request has not begun to run, except
    perhaps after ``broken``, or after ``draining`` if the group's time to finish its requests was over.
    """

    BUSY = "busy"
    """The group holds as many requests as its capacity, or all engines of the model on the worker are full."""
    DRAINING = "draining"
    """The group or worker takes no more requests, because it drains, leaves or is broken. A request that a group has
    accepted gets this value too if the group's time to drain or leave ends, or if the group breaks before the request
    has begun."""
    BROKEN = "broken"
    """The group broke while it ran the request."""
    OTHER = "other"
    """The request is for another group or worker, which had this address before."""
    STARTING = "starting"
    """The replicas of the model on the worker are still starting."""
    FAILED = "failed"
    """The engine of the model on the worker has failed, and starts again."""
    UNKNOWN = "unknown"
    """The worker does not run the model."""
