"""What to do with a pool whose spec Kubernetes took and that cannot be read: say so, once, and leave all as it is.

Pure, as the plan is. Nothing is known of what is wanted, so nothing that runs is touched; the first look at a
spec that can be read goes on from there, and takes the words back.
"""

from __future__ import annotations

from daybreak_server.operator import reporting
from daybreak_server.operator.actions import Action, Plan, WriteStatus
from daybreak_server.operator.diagnosis import unreadable
from daybreak_server.operator.plan import BLOCKED_S, DEEP_REST_S
from daybreak_server.operator.resource import PoolObject, SpecInvalidError


def refuse(pool: PoolObject, why: SpecInvalidError, *, now: float) -> Plan:
    """The pool's status with the cause in it, and an Event; no action where they have been written."""
    before = pool.status
    if pool.deleting:
        return Plan(actions=(), status=before, look_again_s=DEEP_REST_S)
    after = reporting.refused(pool, unreadable(why), now=now)
    written: tuple[Action, ...] = () if after == before else (WriteStatus(status=after),)
    return Plan(actions=(*written, *reporting.events(before, after)), status=after, look_again_s=BLOCKED_S)
