"""The checks right before an action that may stop a group, uncordon a host or remove a drain mark.

A plan is made from views that may lag, so the executor reads the state again for these checks. The `test` operations of
a JSON Patch guard the RayCluster object itself. These checks guard the rest: which pods exist, which groups are busy,
and what Serve runs.
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
from daybreak_server.operator.planner.removal_units import is_busy, replicas_of
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
    """Why the action must not run now; ``None`` if it may."""
    if cluster is None:
        return "it no longer exists"
    workers = [pod for pod in pods if not pod.head]
    match action:
        case CordonHosts() | MarkDrain():
            return _may_reopen(action, cluster, workers)
        case ScaleDown():
            return _may_scale_down(action, cluster, workers, store)
        case DeleteCluster() | Suspend():
            return _may_delete(action, workers, store)
        case ScaleApplication() | PutApplication():
            return _may_change_serve(action, workers, store, serve)


def _may_reopen(action: CordonHosts | MarkDrain, cluster: RayCluster, workers: list[Pod]) -> str | None:
    staying = {host for replica in replicas_of(cluster, workers) for host in replica.hosts}
    return None if staying.issuperset(action.hosts) else "its hosts are terminating"


def _may_delete(action: DeleteCluster | Suspend, workers: list[Pod], store: PoolView) -> str | None:
    if workers:
        return "it has workers again"
    return "there is work again" if isinstance(action, Suspend) and store.has_work else None


def _may_scale_down(
    action: ScaleDown, cluster: RayCluster, workers: list[Pod], store: PoolView
) -> str | None:
    staying = replicas_of(cluster, workers)
    existing = {host for replica in staying for host in replica.hosts}
    gone = [name for name in action.named_pods if name not in existing]
    if gone:
        return f"pod {gone[0]} no longer exists"
    victims = set(action.named_pods)
    remaining = sum(not replica.hosts & victims for replica in staying)
    if remaining > action.max_remaining:
        return f"{remaining} replicas would remain, and at most {action.max_remaining} may"
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


def _may_change_serve(
    action: ScaleApplication | PutApplication, workers: list[Pod], store: PoolView, serve: ServeView | None
) -> str | None:
    limit = action.max_running if isinstance(action, ScaleApplication) else None
    if limit is not None:
        return "more ranks run than should remain" if serve is None or serve.running > limit else None
    # Serve stops every group of this RayCluster, both when it scales to zero and when it deploys again.
    return "a group works here" if _working_on({pod.name for pod in workers}, store) else None


def _working_on(hosts: set[str], store: PoolView) -> list[GroupRecord]:
    return [group for group in store.groups if is_busy(group) and hosts.intersection(group.hosts)]
