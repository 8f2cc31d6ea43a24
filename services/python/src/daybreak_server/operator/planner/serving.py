"""The Serve application of one head: there, alive, and as large as the number of groups."""

from __future__ import annotations

from dataclasses import dataclass

from daybreak_server.domain.names import deployment_name
from daybreak_server.operator.crd.resource import Application, GeneratorPool
from daybreak_server.operator.planner import render
from daybreak_server.operator.planner.actions import Action, PutApplication, ScaleApplication
from daybreak_server.operator.planner.cluster_state import ClusterState

RETRY_S = 30.0
LONGEST_RETRY_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What follows for a head's application."""

    application: Application
    actions: tuple[Action, ...] = ()
    hurry: bool = False


def serve(
    pool: GeneratorPool, lane: ClusterState, *, replicas: int, application: Application, now: float
) -> Served:
    """Towards ``replicas`` groups on this head (after what is patched now)."""
    if not lane.head_ready or lane.serve is None or lane.cluster.suspend:
        return Served(application=application)
    if lane.serve.status in {None, "NOT_STARTED", "DELETING"}:
        put = PutApplication(cluster=lane.cluster, config=render.applications(pool, application.attempt))
        return Served(application=application, actions=(put,), hurry=True)
    if lane.serve.status == "DEPLOY_FAILED":
        application = _next_try(lane, application, now)
    if lane.serve.attempt != application.attempt:
        if lane.works:  # another deployment ends all groups of the one before
            return Served(application=application)
        put = PutApplication(cluster=lane.cluster, config=render.applications(pool, application.attempt))
        return Served(application=application, actions=(put,), hurry=True)
    return Served(
        application=application, actions=_target(pool, lane, replicas * lane.cluster.ranks), hurry=False
    )


def _next_try(lane: ClusterState, application: Application, now: float) -> Application:
    """Serve gives up for good after a few failed starts; only other arguments bring the application back."""
    pause = min(LONGEST_RETRY_S, RETRY_S * 2.0 ** min(application.attempt, 10))
    if lane.serve is None or lane.serve.attempt != application.attempt:
        return application  # the next try is on its way
    if application.since is None:
        return Application(attempt=application.attempt, since=now)
    if now - application.since < pause or lane.works:
        return application
    return Application(attempt=application.attempt + 1, since=now)


def _target(pool: GeneratorPool, lane: ClusterState, target: int) -> tuple[Action, ...]:
    """Raise at once. Lower when what is to go has gone: Serve would choose among those that stay."""
    view = lane.serve
    if view is None or view.target == target:
        return ()
    lowers = target < view.target
    if lowers and target and view.running > target:
        return ()
    if lowers and not target and lane.works:
        return ()
    return (
        ScaleApplication(
            cluster=lane.cluster,
            application=pool.name,
            deployment=deployment_name(pool.name),
            target=target,
            most_running=target if lowers and target else None,
        ),
    )
