"""Splits the wanted groups between the RayClusters of a pool during a rollout.

A change of the template (an image, a model, the number of ranks) creates a second RayCluster beside the old one. The
operator removes no old group until the new head has started and accepted the application. So if the new image cannot be
pulled, the pool keeps all its groups. Then groups are replaced one by one: an old group drains and is removed, which
frees its hosts for a new group. The new group must be ready before the next old group is removed. Both RayClusters
serve the same queue.
"""

from __future__ import annotations

from collections.abc import Sequence

from daybreak_server.operator.planner.cluster_state import ClusterState


def opened(state: ClusterState | None, *, attempt: int) -> bool:
    """Whether the new RayCluster can take groups: its head answers, and its application has not failed."""
    return (
        state is not None
        and not state.cluster.suspend
        and state.head_ready
        and state.serve is not None
        and state.serve.attempt == attempt
        and state.serve.status in {"DEPLOYING", "RUNNING", "UNHEALTHY"}
    )


def failed(state: ClusterState) -> bool:
    """Whether the template evidently cannot run. A head that does not answer at the moment does not count."""
    if state.serve is not None and state.serve.status == "DEPLOY_FAILED":
        return True
    return state.head is not None and state.head.waiting is not None


def shares(
    current: ClusterState | None, outgoing: Sequence[ClusterState], *, wanted: int, attempt: int
) -> dict[str, int]:
    """RayCluster's name → the number of groups that it should have. The name ``""`` stands for ``current``.

    ``outgoing`` is sorted from the oldest RayCluster to the newest.
    """
    occupied = sum(state.occupied_replicas for state in outgoing)
    if not occupied:
        return {"": wanted, **{state.cluster.name: 0 for state in outgoing}}
    ready = current.ready_groups if current is not None else 0
    if not opened(current, attempt=attempt):
        kept = min(wanted, ready)
        if current is not None and not failed(current):
            # The new head does not answer for now. The new groups keep starting, but take no room from the old ones.
            room = wanted - sum(len(state.replicas) for state in outgoing)
            kept = max(kept, min(room, current.cluster.replicas))
        return {"": kept, **_spread(outgoing, wanted - kept, grow=True)}
    stay = max(0, min(sum(len(state.replicas) for state in outgoing), wanted - 1 - ready))
    new = max(0, wanted - occupied)
    if current is not None:
        # The new RayCluster keeps the groups that it has: none of them returns to an old RayCluster.
        new = max(new, min(wanted, current.cluster.replicas))
    return {"": new, **_spread(outgoing, stay, grow=False)}


def _spread(outgoing: Sequence[ClusterState], wanted: int, *, grow: bool) -> dict[str, int]:
    """Divide the ``wanted`` groups, newest RayCluster first. With ``grow``, the newest may get more than it has now."""
    share: dict[str, int] = {}
    remaining = wanted
    for position, state in enumerate(reversed(outgoing)):
        taken = remaining if grow and position == 0 else min(remaining, len(state.replicas))
        share[state.cluster.name] = taken
        remaining -= taken
    return share
