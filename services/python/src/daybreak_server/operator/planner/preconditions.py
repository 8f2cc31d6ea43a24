"""What is checked once more, on fresh readings, right before an action that takes something away.

A plan is made from views that may lag. The tests of a JSON Patch cover the RayCluster itself; these cover what
it does not say: which pods there are, which groups work, what Serve runs.
"""

from __future__ import annotations

from collections.abc import Iterable

from daybreak_server.domain.pools import GroupRecord, GroupState, PoolView
from daybreak_server.operator.planner.actions import (
    CordonHosts,
    DeleteCluster,
    MarkDrain,
    PutApplication,
    ScaleApplication,
    ScaleDown,
    Suspend,
)
from daybreak_server.operator.planner.eviction import drained
from daybreak_server.operator.planner.placement import is_busy, replicas_of
from daybreak_server.ports.cluster import Pod, RayCluster, ServeView

Preconditioned = (
    CordonHosts | MarkDrain | ScaleDown | DeleteCluster | Suspend | ScaleApplication | PutApplication
)


def refusal(
    action: Preconditioned,
    *,
    cluster: RayCluster | None,
    pods: Iterable[Pod],
    store: PoolView,
    serve: ServeView | None = None,
) -> str | None:
    """Why the action must not be done now; ``None`` when it may."""
    if cluster is None:
        return "it is gone"
    workers = [pod for pod in pods if not pod.head]
    match action:
        case CordonHosts() | MarkDrain():
            return _may_reopen(action, cluster, workers)
        case ScaleDown():
            return _remove(action, cluster, workers, store)
        case DeleteCluster() | Suspend():
            return _may_delete(action, workers, store)
        case ScaleApplication() | PutApplication():
            return _changes_serve(action, workers, store, serve)


def _may_reopen(action: CordonHosts | MarkDrain, cluster: RayCluster, workers: list[Pod]) -> str | None:
    staying = {host for replica in replicas_of(cluster, workers) for host in replica.hosts}
    return None if staying.issuperset(action.hosts) else "its hosts are on their way out"


def _may_delete(action: DeleteCluster | Suspend, workers: list[Pod], store: PoolView) -> str | None:
    if workers:
        return "it has workers again"
    return "a task is live again" if isinstance(action, Suspend) and store.live else None


def _remove(action: ScaleDown, cluster: RayCluster, workers: list[Pod], store: PoolView) -> str | None:
    staying = replicas_of(cluster, workers)
    there = {host for replica in staying for host in replica.hosts}
    gone = [name for name in action.victims if name not in there]
    if gone:
        return f"{gone[0]} is not there any more"
    victims = set(action.victims)
    left = sum(not replica.hosts & victims for replica in staying)
    if left > action.most_left:
        return f"{left} groups of hosts would stay, and {action.most_left} may"
    hosts = set(action.hosts)
    for replica in staying:
        if replica.hosts & victims:
            hosts |= replica.hosts
    for group in store.groups:
        if group.state is GroupState.LOST or not hosts.intersection(group.hosts):
            continue
        if not drained(group) and not (group.drain and group.id in action.overdue):
            return f"group {group.id} has not drained"
    return None


def _changes_serve(
    action: ScaleApplication | PutApplication, workers: list[Pod], store: PoolView, serve: ServeView | None
) -> str | None:
    most = action.most_running if isinstance(action, ScaleApplication) else None
    if most is not None:
        return "more ranks run than are to stay" if serve is None or serve.running > most else None
    # Both to zero and to another deployment, Serve ends every group here.
    return "a group works here" if _working_on({pod.name for pod in workers}, store) else None


def _working_on(hosts: set[str], store: PoolView) -> list[GroupRecord]:
    return [group for group in store.groups if is_busy(group) and hosts.intersection(group.hosts)]
