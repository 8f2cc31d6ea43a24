"""How many groups each RayCluster is to have while a pool is renewed.

A change of the template (an image, a model, the number of ranks) makes another RayCluster beside the old one.
Its head must come up and take the application before any group of the old is touched, so an image that cannot
be pulled costs nothing. Then group by group: one old group drains and goes, and its hosts are free for a new
one, which must have formed before the next goes. Both serve the same queue.
"""

from __future__ import annotations

from collections.abc import Sequence

from daybreak_server.operator.planner.cluster_state import ClusterState


def opened(lane: ClusterState | None, *, attempt: int) -> bool:
    """Whether a new RayCluster can take groups: its head answers, and its application has not failed."""
    return (
        lane is not None
        and not lane.cluster.suspend
        and lane.head_ready
        and lane.serve is not None
        and lane.serve.attempt == attempt
        and lane.serve.status in {"DEPLOYING", "RUNNING", "UNHEALTHY"}
    )


def failed(lane: ClusterState) -> bool:
    """Whether it shows that its template cannot run, rather than that its head is not heard for now."""
    if lane.serve is not None and lane.serve.status == "DEPLOY_FAILED":
        return True
    return lane.head is not None and lane.head.waiting is not None


def shares(
    current: ClusterState | None, outgoing: Sequence[ClusterState], *, wanted: int, attempt: int
) -> dict[str, int]:
    """GroupStore by RayCluster, for ``current`` under the name ``""``; ``outgoing`` from the oldest to the newest."""
    there = sum(lane.present for lane in outgoing)
    if not there:
        return {"": wanted, **{lane.cluster.name: 0 for lane in outgoing}}
    is_ready = current.is_ready if current is not None else 0
    if not opened(current, attempt=attempt):
        kept = min(wanted, is_ready)
        if current is not None and not failed(current):
            # Its head is lost for now: what wakes there wakes on, but takes no place of the old.
            room = wanted - sum(len(lane.replicas) for lane in outgoing)
            kept = max(kept, min(room, current.cluster.replicas))
        return {"": kept, **_spread(outgoing, wanted - kept, grow=True)}
    stay = max(0, min(sum(len(lane.replicas) for lane in outgoing), wanted - 1 - is_ready))
    new = max(0, wanted - there)
    if current is not None:
        # What the new one has already is never given back to the old.
        new = max(new, min(wanted, current.cluster.replicas))
    return {"": new, **_spread(outgoing, stay, grow=False)}


def _spread(outgoing: Sequence[ClusterState], wanted: int, *, grow: bool) -> dict[str, int]:
    """The newest keep theirs the longest; only the newest may grow."""
    share: dict[str, int] = {}
    left = wanted
    for place, lane in enumerate(reversed(outgoing)):
        most = left if grow and place == 0 else min(left, len(lane.replicas))
        share[lane.cluster.name] = most
        left -= most
    return share
