"""Keeps the Serve application of one head deployed, healthy and scaled to the number of groups.

``attempt`` is the number of a *deploy attempt*: how often the operator has deployed the application again because Serve
had given up on it. It has nothing to do with the attempts of tasks.
"""

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
    """The decision for the application of one head."""

    application: Application
    actions: tuple[Action, ...] = ()
    requeue_soon: bool = False
    """Whether to plan again within a second or so."""


def serve(
    pool: GeneratorPool, state: ClusterState, *, replicas: int, application: Application, now: float
) -> Served:
    """One step towards ``replicas`` groups on this head. The plan also sizes the RayCluster for this number."""
    if not state.head_ready or state.serve is None or state.cluster.suspend:
        return Served(application=application)
    if state.serve.status in {None, "NOT_STARTED", "DELETING"}:
        put = PutApplication(cluster=state.cluster, config=render.applications(pool, application.attempt))
        return Served(application=application, actions=(put,), requeue_soon=True)
    if state.serve.status == "DEPLOY_FAILED":
        application = _next_attempt(state, application, now)
    if state.serve.attempt != application.attempt:
        if state.busy:  # another deploy attempt stops all groups of the previous one
            return Served(application=application)
        put = PutApplication(cluster=state.cluster, config=render.applications(pool, application.attempt))
        return Served(application=application, actions=(put,), requeue_soon=True)
    if not state.serve.built:  # Ray answers 404 if an application is scaled before it is built
        return Served(application=application, requeue_soon=state.serve.status == "DEPLOYING")
    return Served(application=application, actions=_target(pool, state, replicas * state.cluster.ranks))


def _next_attempt(state: ClusterState, application: Application, now: float) -> Application:
    """The deploy attempt after a failure: the next one once the backoff is over and no group is busy.

    Serve stops retrying after a few failed starts. It starts the application again only with new arguments, here the
    number of the deploy attempt.
    """
    backoff_s = min(LONGEST_RETRY_S, RETRY_S * 2.0 ** min(application.attempt, 10))
    if state.serve is None or state.serve.attempt != application.attempt:
        return application  # Serve has not received the present deploy attempt yet
    if application.since is None:
        return Application(attempt=application.attempt, since=now)
    if now - application.since < backoff_s or state.busy:
        return application
    return Application(attempt=application.attempt + 1, since=now)


def _target(pool: GeneratorPool, state: ClusterState, target: int) -> tuple[Action, ...]:
    """Raise the target at once. Lower it to 0 only while no group is busy. Lower it to another number only after the
    number of running ranks has fallen to that number: otherwise Serve would choose which ranks to stop."""
    view = state.serve
    if view is None or view.target == target:
        return ()
    lowers = target < view.target
    if lowers and target and view.running > target:
        return ()
    if lowers and not target and state.busy:
        return ()
    return (
        ScaleApplication(
            cluster=state.cluster,
            application=pool.name,
            deployment=deployment_name(pool.name),
            target=target,
            max_running=target if lowers and target else None,
        ),
    )
