"""Decides the next actions for a pool from one observation: a pure, level-based function without clock or I/O.

How it works:

1. ``cluster_states`` sorts the pods, the groups and Serve's view by RayCluster. At rest, a pool has one RayCluster.
   During a rollout, it has one of the current revision and one of each outgoing revision.
2. ``wanted``, the number of groups, is the larger of ``spec.replicas`` (KEDA) and the warm schedule. If both are 0, one
   ready group stays while there is work. ``rollout.shares`` splits ``wanted`` between the RayClusters.
3. For each RayCluster, ``scale`` decides how many replicas it should have, and chooses the *victims*: the replicas to
   remove. ``serve`` decides whether to deploy or to scale the Serve application.
4. Groups with a rank on a victim are marked to drain. Once none of them is busy, or their drain deadline has passed,
   their hosts are cordoned and removed.
5. The new status is written before every action that relies on it. Only uncordoning comes before this write.

The operator calls ``plan`` on every change and again after ``requeue_after_s``. It keeps no memory: whatever must
survive is in the pool's status. The operator may therefore die between any two actions, read stale views and lose
races: the next call starts from the actual state.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from daybreak_server.domain.pools import WakePhase
from daybreak_server.operator.crd import names
from daybreak_server.operator.crd.resource import Application, Drain, PoolStatus
from daybreak_server.operator.planner import render, rollout, status, wake, warm_schedule
from daybreak_server.operator.planner.actions import (
    Action,
    CordonHosts,
    CreateCluster,
    DeleteCluster,
    MarkDrain,
    PoolPlan,
    Resume,
    Suspend,
    WriteStatus,
)
from daybreak_server.operator.planner.cluster_state import ClusterState, cluster_states
from daybreak_server.operator.planner.diagnosis import SILENT_S, problems
from daybreak_server.operator.planner.eviction import MARK_S, RELEASE_S
from daybreak_server.operator.planner.observed import Observed
from daybreak_server.operator.planner.removal_units import is_ready
from daybreak_server.operator.planner.scaling import Scaled, ScalingContext, scale
from daybreak_server.operator.planner.serving import Served, serve
from daybreak_server.operator.planner.status import PlanInputs

REQUEUE_FAST_S = 1.0
REQUEUE_ACTIVE_S = 2.0
REQUEUE_IDLE_S = 10.0
"""How often the operator checks, while a head runs, that its application still exists."""
REQUEUE_ZERO_S = 60.0
"""How often the operator polls the store while nothing of the pool runs, to notice tasks that KEDA missed."""
BLOCKED_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPlan:
    """The decisions for one RayCluster."""

    state: ClusterState
    scaled: Scaled
    served: Served
    actions: tuple[Action, ...] = ()
    """Changes to the RayCluster."""
    serve_actions: tuple[Action, ...] = ()
    """Calls to the RayCluster's head. They run after the ``actions`` of all RayClusters, so that a silent head delays
    nothing else."""
    requeue_soon: bool = False
    """Whether to plan again after ``REQUEUE_FAST_S``."""


def plan(observed: Observed) -> PoolPlan:
    """The actions that bring the pool closer to its spec; none at rest."""
    pool, before = observed.pool, observed.pool.status
    if pool.deleting:
        # Kubernetes deletes the RayClusters with the pool, and the groups release their tasks when their pods stop.
        return PoolPlan(actions=(), status=before, requeue_after_s=REQUEUE_ZERO_S)
    states = cluster_states(observed)
    revision = names.revision(pool)
    current = next((state for state in states if state.cluster.revision == revision), None)
    outgoing = tuple(state for state in states if state.cluster.revision != revision)
    requested = max(pool.spec.replicas, warm_schedule.floor(pool.spec, observed.now))
    wanted, kept_for_work = _wanted(observed, states, requested)
    serialize_growth = _serialize_growth(observed, states, wanted)
    zero_since = _zero_since(observed, states, wanted)
    decisions: tuple[ClusterPlan, ...] = ()
    creates: tuple[Action, ...] = ()
    drains, cordoned = before.drains, before.cordoned
    marks, uncordons = tuple[Action, ...](), tuple[Action, ...]()
    application = _application(before, current, revision)
    if not pool.spec.paused and observed.view.kuberay:
        context = _scaling_context(observed, serialize_growth=serialize_growth)
        share = rollout.shares(current, outgoing, wanted=wanted, attempt=application.attempt)
        creates = _create(observed, current, outgoing, share[""])
        decisions = tuple(
            _plan_cluster(
                observed, state, current, share, context, zero_since=zero_since, application=application
            )
            for state in states
        )
        drains, marks = _drains(observed, states, [decision.scaled for decision in decisions])
        cordoned, cordons, uncordons = _cordons(observed, states, [decision.scaled for decision in decisions])
        marks = (*cordons, *marks)
        application = next(
            (decision.served.application for decision in decisions if decision.state is current), application
        )
    inputs = PlanInputs(
        wanted=wanted,
        kept_for_work=kept_for_work,
        states=states,
        outgoing=outgoing,
        problems=problems(observed, states),
        wake=wake.follow(observed, states, wanted=wanted),
        drains=drains,
        cordoned=cordoned,
        application=application,
        zero_since=zero_since,
        serialize_growth=serialize_growth,
        revision=revision,
    )
    after = status.status(observed, inputs)
    actions = uncordons if after == before else (*uncordons, WriteStatus(status=after))
    actions += (*status.events(before, after), *creates, *marks)
    for decision in decisions:
        actions += decision.actions
    for decision in decisions:
        actions += decision.serve_actions
    return PoolPlan(
        actions=actions, status=after, requeue_after_s=_requeue_after(observed, inputs, decisions, actions)
    )


def _scaling_context(observed: Observed, *, serialize_growth: bool) -> ScalingContext:
    return ScalingContext(
        now=observed.now,
        drains={drain.group: drain for drain in observed.pool.status.drains},
        no_work=_no_work(observed),
        serialize_growth=serialize_growth,
    )


def _wanted(observed: Observed, states: Sequence[ClusterState], requested: int) -> tuple[int, bool]:
    """The number of groups wanted, and whether the last group stays only because there is work.

    While the pool has live tasks, requests or sessions, one ready group stays, if there is any.
    """
    if requested or observed.store is None or not observed.store.has_work:
        return requested, False
    stays = any(is_ready(group) for state in states for unit in state.units for group in unit.groups)
    return (1, True) if stays else (0, False)


def _serialize_growth(observed: Observed, states: Sequence[ClusterState], wanted: int) -> bool:
    if any(unit.mixed for state in states for unit in state.units):
        return True
    if not observed.pool.status.serialize_growth:
        return False
    replicas = sum(state.cluster.replicas for state in states)
    return not (replicas == wanted and all(state.settled for state in states))


def _no_work(observed: Observed) -> bool:
    return observed.store is not None and not observed.store.has_work


def _zero_since(observed: Observed, states: Sequence[ClusterState], wanted: int) -> float | None:
    if wanted or not _no_work(observed) or not all(state.empty for state in states):
        return None
    since = observed.pool.status.zero_since
    return round(observed.now, 3) if since is None else since


def _create(
    observed: Observed, current: ClusterState | None, outgoing: Sequence[ClusterState], share: int
) -> tuple[Action, ...]:
    """Create the RayCluster of the wanted revision, unless one of that name exists."""
    pool = observed.pool
    name = names.cluster_name(pool.name, names.revision(pool))
    if current is not None or any(cluster.name == name for cluster in observed.view.clusters):
        return ()
    suspend = pool.spec.idle.mode == "cluster" and not share and not any(state.workers for state in outgoing)
    return (CreateCluster(manifest=render.cluster(pool, replicas=share, suspend=suspend)),)


def _plan_cluster(
    observed: Observed,
    state: ClusterState,
    current: ClusterState | None,
    share: dict[str, int],
    context: ScalingContext,
    *,
    zero_since: float | None,
    application: Application,
) -> ClusterPlan:
    pool, is_current = observed.pool, state is current
    wanted = share[""] if is_current else share[state.cluster.name]
    if observed.store is None:
        wanted = max(wanted, state.cluster.replicas)  # any group may be busy, so none is removed
        scaled = (
            scale(state, wanted=wanted, context=context)
            if wanted > state.cluster.replicas
            else Scaled(replicas=wanted)
        )
    else:
        scaled = scale(state, wanted=wanted, context=context)
    deployed = application if is_current else _as_deployed(state)
    served = serve(pool, state, replicas=scaled.replicas, application=deployed, now=observed.now)
    if not is_current and state.empty:
        return ClusterPlan(
            state=state,
            scaled=scaled,
            served=served,
            actions=(DeleteCluster(cluster=state.cluster),),
            requeue_soon=True,
        )
    if state.cluster.suspend:
        stays = is_current and (wanted or pool.spec.idle.mode == "workers" or _renewing(state, observed))
        if stays:
            resume = Resume(cluster=state.cluster, replicas=wanted)
            return ClusterPlan(
                state=state, scaled=scaled, served=served, actions=(resume,), requeue_soon=True
            )
        return ClusterPlan(state=state, scaled=Scaled(replicas=state.cluster.replicas), served=served)
    if is_current and _may_suspend(observed, state, zero_since):
        return ClusterPlan(
            state=state, scaled=scaled, served=served, actions=(Suspend(cluster=state.cluster),)
        )
    return ClusterPlan(
        state=state,
        scaled=scaled,
        served=served,
        actions=scaled.actions,
        serve_actions=served.actions,
        requeue_soon=scaled.requeue_soon or served.requeue_soon,
    )


def _application(before: PoolStatus, current: ClusterState | None, revision: str) -> Application:
    """The number of the Serve application's deploy attempt, which ``serve`` may increase.

    Each revision counts its own deploy attempts, so no revision backs off because another revision failed. If the pool
    returns to an earlier revision whose RayCluster still exists, the number comes from the application on that
    RayCluster. Until Serve on that RayCluster answers, the status keeps the number of the revision that the pool
    leaves.
    """
    counted = before.application.revision or before.revision
    if counted in {"", revision}:
        return before.application.model_copy(update={"revision": ""})
    if current is None:
        return Application()
    if current.serve is None:
        return before.application.model_copy(update={"revision": counted})
    return _as_deployed(current)


def _as_deployed(state: ClusterState) -> Application:
    """The deploy attempt of the application on this RayCluster. An outgoing revision keeps its application."""
    return Application(attempt=state.serve.attempt or 0) if state.serve is not None else Application()


def _renewing(state: ClusterState, observed: Observed) -> bool:
    """Whether older RayClusters still have workers that this one will replace."""
    return any(not pod.head and pod.cluster != state.cluster.name for pod in observed.view.pods)


def _may_suspend(observed: Observed, state: ClusterState, zero_since: float | None) -> bool:
    idle = observed.pool.spec.idle
    if idle.mode != "cluster" or zero_since is None or not state.empty:
        return False
    serve_at_zero = state.serve is None or state.serve.status is None or state.serve.target == 0
    return serve_at_zero and observed.now - zero_since >= idle.after_seconds


def _drains(
    observed: Observed, states: Sequence[ClusterState], scaled: Iterable[Scaled]
) -> tuple[tuple[Drain, ...], tuple[Action, ...]]:
    """The drain records of the status, and the marks to set or remove in the store.

    A group's record is written before its mark is set.
    """
    known = {drain.group: drain for drain in observed.pool.status.drains}
    if observed.store is None:
        return observed.pool.status.drains, ()
    chosen = {group.id: group for result in scaled for unit in result.victims for group in unit.groups}
    staying = {group.id: state for state in states for unit in state.units for group in unit.groups}
    cordoned = set(observed.pool.status.cordoned)
    records: list[Drain] = []
    marks: list[Action] = []
    for group in observed.store.groups:
        record = known.get(group.id)
        if group.id in chosen:
            if record is None or (not group.drain and observed.now - record.since > MARK_S):
                now = round(observed.now, 3)
                deadline = now + MARK_S + observed.pool.spec.drain_seconds + RELEASE_S
                record = Drain(group=group.id, since=now, deadline=deadline)
            records.append(record)
            if not group.drain:
                marks.append(MarkDrain(group=group.id, on=True))
        elif group.id in staying and (record is not None or cordoned.intersection(group.hosts)):
            if group.drain:
                cluster = staying[group.id].cluster
                marks.append(MarkDrain(group=group.id, on=False, cluster=cluster, hosts=group.hosts))
                if record is not None:
                    records.append(record)  # dropped once a later view shows that the mark is gone
        elif record is not None:
            records.append(record)  # its hosts are terminating
    return tuple(records), tuple(marks)


def _cordons(
    observed: Observed, states: Sequence[ClusterState], scaled: Sequence[Scaled]
) -> tuple[tuple[str, ...], tuple[Action, ...], tuple[Action, ...]]:
    """The cordoned hosts for the status, the hosts to cordon now, and those to uncordon.

    The executor first uncordons, then writes the status, and then cordons. So every cordoned host is in the status,
    where a restarted operator finds it.
    """
    before = observed.pool.status.cordoned
    if observed.store is None:
        return before, (), ()
    chosen = {host for result in scaled for unit in (*result.victims, *result.evicted) for host in unit.hosts}
    leaving = tuple(sorted({host for result in scaled for unit in result.evicted for host in unit.hosts}))
    uncordons: list[Action] = []
    marked: set[str] = set()
    staying: set[str] = set()
    for state in states:
        here = {host for replica in state.replicas for host in replica.hosts} - chosen
        staying |= here
        marked |= {host for group in state.groups if group.drain for host in group.hosts}
        returning = tuple(host for host in before if host in here and host in observed.store.cordoned)
        if returning:
            uncordons.append(CordonHosts(hosts=returning, cordoned=False, cluster=state.cluster))
    existing = {pod.name for state in states for pod in state.workers}
    # A group that registers on a cordoned host is marked to drain. The status lists the host until that mark is gone.
    kept = [host for host in before if host in existing and (host not in staying or host in marked)]
    open_hosts = tuple(host for host in leaving if host not in observed.store.cordoned)
    cordons = (CordonHosts(hosts=open_hosts),) if open_hosts else ()
    return tuple(dict.fromkeys((*kept, *leaving))), cordons, tuple(uncordons)


def _requeue_after(
    observed: Observed, inputs: PlanInputs, decisions: Sequence[ClusterPlan], actions: Sequence[Action]
) -> float:
    spec, now = observed.pool.spec, observed.now
    if any(decision.requeue_soon for decision in decisions):
        return REQUEUE_FAST_S
    moments = [REQUEUE_ZERO_S]
    not_suspended = [decision.state for decision in decisions if not decision.state.cluster.suspend]
    if not_suspended:
        moments.append(REQUEUE_IDLE_S)
    if actions or any(not state.settled or state.serve is None for state in not_suspended):
        moments.append(REQUEUE_ACTIVE_S)
    if inputs.problems:
        moments.append(BLOCKED_S)
    if inputs.wake.phase == WakePhase.DETECT:
        moments.append(SILENT_S)
    moments += [drain.deadline - now for drain in inputs.drains]
    change = warm_schedule.next_change_s(spec, now)
    if change is not None:
        moments.append(change)
    if inputs.zero_since is not None and spec.idle.mode == "cluster" and not_suspended:
        moments.append(inputs.zero_since + spec.idle.after_seconds - now)
    return max(REQUEUE_FAST_S, min(moments))
