"""Makes the plans for a pool whose spec the operator cannot read, although Kubernetes has accepted it. The plans report
the error once and change nothing else.

This module is pure, like ``plan``. The operator does not know what the user wants, so it leaves everything that runs as
it is. The first plan from a readable spec continues from what runs, and removes the report from the pool's status.
"""

from __future__ import annotations

from daybreak_server.operator.crd.resource import PoolObject, SpecInvalidError
from daybreak_server.operator.planner import status
from daybreak_server.operator.planner.actions import Action, PoolPlan, WriteStatus
from daybreak_server.operator.planner.diagnosis import unreadable
from daybreak_server.operator.planner.plan import BLOCKED_S, REQUEUE_ZERO_S


def refuse(pool: PoolObject, why: SpecInvalidError, *, now: float) -> PoolPlan:
    """Write the cause to the pool's status and emit an Event. If the status already has this cause, do nothing."""
    before = pool.status
    if pool.deleting:
        return PoolPlan(actions=(), status=before, requeue_after_s=REQUEUE_ZERO_S)
    after = status.refused(pool, unreadable(why), now=now)
    written: tuple[Action, ...] = () if after == before else (WriteStatus(status=after),)
    return PoolPlan(
        actions=(*written, *status.events(before, after)), status=after, requeue_after_s=BLOCKED_S
    )
