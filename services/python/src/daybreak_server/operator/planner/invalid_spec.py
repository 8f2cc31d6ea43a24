"""Plans for a pool whose spec Kubernetes accepted but the operator cannot read: report it once and change nothing.

Pure, like ``plan``. What is wanted is unknown, so nothing that runs is touched. The first plan from a readable spec
continues from there and clears the condition.
"""

from __future__ import annotations

from daybreak_server.operator.crd.resource import PoolObject, SpecInvalidError
from daybreak_server.operator.planner import status
from daybreak_server.operator.planner.actions import Action, PoolPlan, WriteStatus
from daybreak_server.operator.planner.diagnosis import unreadable
from daybreak_server.operator.planner.plan import BLOCKED_S, REQUEUE_ZERO_S


def refuse(pool: PoolObject, why: SpecInvalidError, *, now: float) -> PoolPlan:
    """Write the cause to the pool's status and emit an Event; no actions if the status says so already."""
    before = pool.status
    if pool.deleting:
        return PoolPlan(actions=(), status=before, requeue_after_s=REQUEUE_ZERO_S)
    after = status.refused(pool, unreadable(why), now=now)
    written: tuple[Action, ...] = () if after == before else (WriteStatus(status=after),)
    return PoolPlan(
        actions=(*written, *status.events(before, after)), status=after, requeue_after_s=BLOCKED_S
    )
