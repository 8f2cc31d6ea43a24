"""What to do with a pool whose spec Kubernetes took and that cannot be read: say so, once, and leave all as it is.

Pure, as the plan is. Nothing is known of what is wanted, so nothing that runs is touched; the first look at a
spec that can be read goes on from there, and takes the words back.
"""

from __future__ import annotations

from daybreak_server.operator.crd.resource import PoolObject, SpecInvalidError
from daybreak_server.operator.planner import status
from daybreak_server.operator.planner.actions import Action, Plan, WriteStatus
from daybreak_server.operator.planner.diagnosis import unreadable
from daybreak_server.operator.planner.plan import BLOCKED_S, REQUEUE_ZERO_S


def refuse(pool: PoolObject, why: SpecInvalidError, *, now: float) -> Plan:
    """The pool's status with the cause in it, and an Event; no action where they have been written."""
    before = pool.status
    if pool.deleting:
        return Plan(actions=(), status=before, requeue_after_s=REQUEUE_ZERO_S)
    after = status.refused(pool, unreadable(why), now=now)
    written: tuple[Action, ...] = () if after == before else (WriteStatus(status=after),)
    return Plan(actions=(*written, *status.events(before, after)), status=after, requeue_after_s=BLOCKED_S)
