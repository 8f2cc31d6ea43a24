"""Carries a plan out: one call after another, each checked on fresh readings where it takes something away."""

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
    Serve,
)
from daybreak_server.ports.pools import GroupStore

_log = logging.getLogger(__name__)
_ON_RAYCLUSTER = (CreateCluster, ScaleUp, ScaleDown, Resume, Suspend, DeleteCluster)


def _alone(action: Action, exc: ClusterError) -> bool:
    """Whether nothing else in a plan relies on what has failed."""
    if isinstance(action, CreateCluster):
        return isinstance(exc, ClusterRefusedError)
    return isinstance(action, PutApplication | ScaleApplication)


@dataclass(frozen=True, slots=True)
class Executor:
    """Does what a plan says, through the three faces."""

    cluster: Cluster
    serve: Serve
    groups: GroupStore

    async def carry_all(
        self,
        pool: PoolObject,
        actions: Sequence[Action],
        *,
        done: Callable[[Action], None],
        refused: Callable[[Cause], None],
    ) -> None:
        """In order, up to the first that fails: what follows may rely on it. But what one lane is refused holds up no
        other: where Kubernetes will have no such RayCluster, or a head no application, the rest is done first.

        ``done`` is called after each; ``refused`` when Kubernetes refuses something of a RayCluster, with the cause.

        :raises ClusterError: of the first that failed; a conflict means that the next look decides again.
        :raises StoreUnavailableError: when Redis cannot be asked.
        """
        failed: ClusterError | None = None
        for action in actions:
            if failed is not None and isinstance(action, DeleteCluster):
                continue  # it goes because there is another, and now there may be none
            try:
                await self.carry(pool, action)
            except ClusterError as exc:
                if isinstance(exc, ClusterRefusedError) and isinstance(action, _ON_RAYCLUSTER):
                    refused(exc.cause)
                if not _alone(action, exc):
                    raise
                failed = failed or exc
            else:
                done(action)
        if failed is not None:
            raise failed

    async def carry(self, pool: PoolObject, action: Action) -> None:
        """One action. :raises ClusterConflictError: when things are not as the plan took them to be."""
        match action:
            case WriteStatus():
                await self.cluster.write_status(pool.name, uid=pool.uid, status=dump_status(action.status))
            case EmitEvent():
                await self._emit(pool, action)
            case CreateCluster():
                await self.cluster.create(action.manifest)
            case ScaleUp() | Resume():
                await self.cluster.patch(action.cluster.name, action.operations())
            case CordonHosts(closed=True):
                await self.groups.cordon_hosts(pool.name, action.hosts)
            case MarkDrain(on=True):
                await self.groups.drain(pool.name, action.group, on=True)
            case ScaleApplication() if action.most_running is None and action.target:
                await self._scale(action)
            case _:
                await self._guarded(pool, action)

    async def _guarded(self, pool: PoolObject, action: preconditions.Preconditioned) -> None:
        assert action.cluster is not None, "what is guarded is about a RayCluster"
        name = action.cluster.name
        serve = None
        if isinstance(action, ScaleApplication) and action.most_running is not None:
            serve = await self.serve.look(action.cluster, application=pool.name)
        cluster, pods = await self.cluster.fresh(name)
        store = await self.groups.pool(pool.name)
        why = preconditions.refusal(action, cluster=cluster, pods=pods, store=store, serve=serve)
        if why is not None:
            raise ClusterConflictError(f"{type(action).__name__} of {name} waits: {why}")
        match action:
            case CordonHosts():
                await self.groups.cordon_hosts(pool.name, action.hosts, closed=action.closed)
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
        """An Event that is lost holds nothing up."""
        try:
            await self.cluster.emit(
                pool.name, uid=pool.uid, kind=action.kind, reason=action.reason, message=action.message
            )
        except ClusterError as exc:
            _log.warning("the event %s of %s is lost: %s", action.reason, pool.name, exc)
