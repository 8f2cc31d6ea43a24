"""Runs the actions of a plan one after another. Before an action with preconditions, the executor reads the state again
and checks the preconditions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from daybreak_server.domain.causes import Cause
from daybreak_server.operator.crd.resource import PoolObject, dump_status
from daybreak_server.operator.planner import preconditions
from daybreak_server.operator.planner.actions import (
    Action,
    CordonHosts,
    CreateCluster,
    DeleteCluster,
    EmitEvent,
    MarkDrain,
    PutApplication,
    Resume,
    ScaleApplication,
    ScaleDown,
    ScaleUp,
    Suspend,
    WriteStatus,
)
from daybreak_server.ports.cluster import (
    Cluster,
    ClusterConflictError,
    ClusterError,
    ClusterRefusedError,
    ServeApi,
)
from daybreak_server.ports.pools import GroupStore

_log = logging.getLogger(__name__)
_ON_RAYCLUSTER = (CreateCluster, ScaleUp, ScaleDown, Resume, Suspend, DeleteCluster)


def _is_independent(action: Action, exc: ClusterError) -> bool:
    """Whether the plan can continue after this failure, except for deletions of RayClusters."""
    if isinstance(action, CreateCluster):
        return isinstance(exc, ClusterRefusedError)
    return isinstance(action, PutApplication | ScaleApplication)


@dataclass(frozen=True, slots=True)
class Executor:
    """Runs a plan through the ports of Kubernetes, Serve and the task store."""

    cluster: Cluster
    serve: ServeApi
    groups: GroupStore

    async def execute_all(
        self,
        pool: PoolObject,
        actions: Sequence[Action],
        *,
        done: Callable[[Action], None],
        refused: Callable[[Cause], None],
    ) -> None:
        """Run the actions in order, and stop at a failure if later actions may rely on the failed one.

        Three kinds of failure must not delay the pool's other RayClusters: Kubernetes refuses to create a RayCluster, a
        call to a Ray head fails, or the precondition of such a call is not met. After such a failure, the remaining
        actions run, except deletions of RayClusters. At the end, the first failure is raised.

        ``done`` is called after each action that succeeded. ``refused`` is called with the cause if Kubernetes refuses
        to change a RayCluster.

        :raises ClusterError: the failure that stopped the actions, or else the first one. After a conflict, the
            reconciler's next step makes a new plan.
        :raises StoreUnavailableError: if Redis cannot be reached.
        """
        failed: ClusterError | None = None
        for action in actions:
            if failed is not None and isinstance(action, DeleteCluster):
                continue  # perhaps the RayCluster that replaces this one does not exist
            try:
                await self.execute(pool, action)
            except ClusterError as exc:
                if isinstance(exc, ClusterRefusedError) and isinstance(action, _ON_RAYCLUSTER):
                    refused(exc.cause)
                if not _is_independent(action, exc):
                    raise
                failed = failed or exc
            else:
                done(action)
        if failed is not None:
            raise failed

    async def execute(self, pool: PoolObject, action: Action) -> None:
        """Run one action. :raises ClusterConflictError: if the state differs from what the plan assumed."""
        match action:
            case WriteStatus():
                await self.cluster.write_status(pool.name, uid=pool.uid, status=dump_status(action.status))
            case EmitEvent():
                await self._emit(pool, action)
            case CreateCluster():
                await self.cluster.create(action.manifest)
            case ScaleUp() | Resume():
                await self.cluster.patch(action.cluster.name, action.operations())
            case CordonHosts(cordoned=True):
                await self.groups.cordon_hosts(pool.name, action.hosts)
            case MarkDrain(on=True):
                await self.groups.drain(pool.name, action.group, on=True)
            case ScaleApplication() if action.max_running is None and action.target:
                await self._scale(action)
            case _:
                await self._execute_checked(pool, action)

    async def _execute_checked(self, pool: PoolObject, action: preconditions.Preconditioned) -> None:
        assert action.cluster is not None, "checked actions concern a RayCluster"
        name = action.cluster.name
        serve = None
        if isinstance(action, ScaleApplication) and action.max_running is not None:
            serve = await self.serve.observe(action.cluster, application=pool.name)
        cluster, pods = await self.cluster.read(name)
        store = await self.groups.pool(pool.name)
        reason = preconditions.refusal(action, cluster=cluster, pods=pods, store=store, serve=serve)
        if reason is not None:
            raise ClusterConflictError(f"{type(action).__name__} of {name} waits: {reason}")
        match action:
            case CordonHosts():
                await self.groups.cordon_hosts(pool.name, action.hosts, cordoned=action.cordoned)
            case MarkDrain():
                await self.groups.drain(pool.name, action.group, on=action.on)
            case ScaleDown() | Suspend():
                await self.cluster.patch(name, action.operations())
            case DeleteCluster():
                version = action.cluster.resource_version
                await self.cluster.delete(name, uid=action.cluster.uid, resource_version=version)
            case PutApplication():
                await self.serve.put(action.cluster, action.config)
            case ScaleApplication():
                await self._scale(action)

    async def _scale(self, action: ScaleApplication) -> None:
        await self.serve.scale(
            action.cluster,
            application=action.application,
            deployment=action.deployment,
            target=action.target,
        )

    async def _emit(self, pool: PoolObject, action: EmitEvent) -> None:
        """Emit an Event. A failure is only logged, so it does not stop the plan."""
        try:
            await self.cluster.emit(
                pool.name, uid=pool.uid, kind=action.kind, reason=action.reason, message=action.message
            )
        except ClusterError as exc:
            _log.warning("could not record the Event %s of pool %s: %s", action.reason, pool.name, exc)
