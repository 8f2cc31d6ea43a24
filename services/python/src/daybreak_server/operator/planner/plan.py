"""What to do now, from what was observed: a pure function, level-based, without a clock and without I/O.

It is called on every change and again after ``requeue_after_s``. It holds no memory: what must outlast a look is
in the pool's status, which is written before anything that relies on it is done. So it may be cut off between
any two actions, read old views, and lose races: the next look goes on from what is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from daybreak_server.domain.pools import WakePhase
from daybreak_server.operator.crd import names
from daybreak_server.operator.crd.resource import Application, Drain, PoolStatus
from daybreak_server.operator.planner import render, rollout, schedule, status, wake
from daybreak_server.operator.planner.actions import (
    Action,
    CordonHosts,
    CreateCluster,
    DeleteCluster,
    MarkDrain,
    Plan,
    Resume,
    Suspend,
    WriteStatus,
)
from daybreak_server.operator.planner.cluster_state import ClusterState, lanes
from daybreak_server.operator.planner.diagnosis import SILENT_S, problems
from daybreak_server.operator.planner.eviction import MARK_S, RELEASE_S
from daybreak_server.operator.planner.observed import Observed
from daybreak_server.operator.planner.placement import is_ready
from daybreak_server.operator.planner.scaling import Scaled, ScalingContext, scale
from daybreak_server.operator.planner.serving import Served, serve
from daybreak_server.operator.planner.status import PlanInputs

REQUEUE_FAST_S = 1.0
REQUEUE_ACTIVE_S = 2.0
REQUEUE_IDLE_S = 10.0
"""A head that is up is asked whether its application is still there."""
REQUEUE_ZERO_S = 60.0
"""A pool of which nothing runs: a look asks the store only, so that tasks which nobody wakes it for are noticed."""
BLOCKED_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPlan:
    """What was decided for one lane."""

    lane: ClusterState
    scaled: Scaled
    served: Served
    actions: tuple[Action, ...] = ()
    """On the RayCluster."""
    serves: tuple[Action, ...] = ()
    """On its head: after those of all lanes, so that a head that does not answer holds nothing else up."""
    hurry: bool = False


def plan(observed: Observed) -> Plan:
    """The actions that bring the pool nearer to its spec; none at rest."""
    pool, before = observed.pool, observed.pool.status
    if pool.deleting:  # its RayClusters go with it; their groups hand back when their pods are told to stop
        return Plan(actions=(), status=before, requeue_after_s=REQUEUE_ZERO_S)
    every = lanes(observed)
    revision = names.revision(pool)
    current = next((lane for lane in every if lane.cluster.revision == revision), None)
    outgoing = tuple(lane for lane in every if lane.cluster.revision != revision)
    asked = max(pool.spec.replicas, schedule.floor(pool.spec, observed.now))
    wanted, held = _wanted(observed, every, asked)
    serialize_growth = _serialize_growth(observed, every, wanted)
    idle_since = _idle_since(observed, every, wanted)
    courses: tuple[ClusterPlan, ...] = ()
    creates: tuple[Action, ...] = ()
    drains, closed = before.drains, before.closed
    marks, opens = tuple[Action, ...](), tuple[Action, ...]()
    application = _application(before, current, revision)
    if not pool.spec.paused and observed.view.kuberay:
        moment = ScalingContext(
            now=observed.now,
            drains={drain.group: drain for drain in before.drains},
            nothing_live=observed.store is not None and observed.store.live == 0,
            serialize_growth=serialize_growth,
        )
        share = rollout.shares(current, outgoing, wanted=wanted, attempt=application.attempt)
        creates = _create(observed, current, outgoing, share[""])
        courses = tuple(
            _course(observed, lane, current, share, moment, idle_since=idle_since, application=application)
            for lane in every
        )
        drains, marks = _drains(observed, every, [course.scaled for course in courses])
        closed, closes, opens = _closed(observed, every, [course.scaled for course in courses])
        marks = (*closes, *marks)
        application = next(
            (course.served.application for course in courses if course.lane is current), application
        )
    found = PlanInputs(
        wanted=wanted,
        held=held,
        lanes=every,
        outgoing=outgoing,
        problems=problems(observed, every),
        wake=wake.follow(observed, every, wanted=wanted),
        drains=drains,
        closed=closed,
        application=application,
        idle_since=idle_since,
        serialize_growth=serialize_growth,
        revision=revision,
    )
    after = status.status(observed, found)
    actions = opens if after == before else (*opens, WriteStatus(status=after))
    actions += (*status.events(before, after), *creates, *marks)
    for course in courses:
        actions += course.actions
    for course in courses:
        actions += course.serves
    return Plan(
        actions=actions, status=after, requeue_after_s=_requeue_after(observed, found, courses, actions)
    )


def _wanted(observed: Observed, every: Sequence[ClusterState], asked: int) -> tuple[int, bool]:
    """GroupStore wanted; and whether the last one stays only because tasks are live."""
    live = observed.store.live if observed.store is not None else 0
    if asked or not live:
        return asked, False
    stays = any(is_ready(group) for lane in every for unit in lane.units for group in unit.groups)
    return (1, True) if stays else (0, False)


def _serialize_growth(observed: Observed, every: Sequence[ClusterState], wanted: int) -> bool:
    if any(unit.mixed for lane in every for unit in lane.units):
        return True
    if not observed.pool.status.serialize_growth:
        return False
    there = sum(lane.cluster.replicas for lane in every)
    return not (there == wanted and all(lane.settled for lane in every))


def _idle_since(observed: Observed, every: Sequence[ClusterState], wanted: int) -> float | None:
    nothing = observed.store is not None and observed.store.live == 0
    if wanted or not nothing or not all(lane.empty for lane in every):
        return None
    since = observed.pool.status.idle_since
    return round(observed.now, 3) if since is None else since


def _create(
    observed: Observed, current: ClusterState | None, outgoing: Sequence[ClusterState], share: int
) -> tuple[Action, ...]:
    """The RayCluster of the wanted revision, where there is none of that name."""
    pool = observed.pool
    name = names.cluster_name(pool.name, names.revision(pool))
    if current is not None or any(cluster.name == name for cluster in observed.view.clusters):
        return ()
    asleep = pool.spec.idle.mode == "cluster" and not share and not any(lane.workers for lane in outgoing)
    return (CreateCluster(manifest=render.cluster(pool, replicas=share, suspend=asleep)),)


def _course(
    observed: Observed,
    lane: ClusterState,
    current: ClusterState | None,
    share: dict[str, int],
    moment: ScalingContext,
    *,
    idle_since: float | None,
    application: Application,
) -> ClusterPlan:
    pool, mine = observed.pool, lane is current
    wanted = share[""] if mine else share[lane.cluster.name]
    if observed.store is None:
        wanted = max(wanted, lane.cluster.replicas)  # who works is not known, so nobody goes
        scaled = (
            scale(lane, wanted=wanted, moment=moment)
            if wanted > lane.cluster.replicas
            else Scaled(replicas=wanted)
        )
    else:
        scaled = scale(lane, wanted=wanted, moment=moment)
    deployed = application if mine else _as_deployed(lane)
    served = serve(pool, lane, replicas=scaled.replicas, application=deployed, now=observed.now)
    if not mine and lane.empty:
        return ClusterPlan(
            lane=lane,
            scaled=scaled,
            served=served,
            actions=(DeleteCluster(cluster=lane.cluster),),
            hurry=True,
        )
    if lane.cluster.suspend:
        stays = mine and (wanted or pool.spec.idle.mode == "workers" or _renewing(lane, observed))
        if stays:
            resume = Resume(cluster=lane.cluster, replicas=wanted)
            return ClusterPlan(lane=lane, scaled=scaled, served=served, actions=(resume,), hurry=True)
        return ClusterPlan(lane=lane, scaled=Scaled(replicas=lane.cluster.replicas), served=served)
    if mine and _may_sleep(observed, lane, idle_since):
        return ClusterPlan(lane=lane, scaled=scaled, served=served, actions=(Suspend(cluster=lane.cluster),))
    return ClusterPlan(
        lane=lane,
        scaled=scaled,
        served=served,
        actions=scaled.actions,
        serves=served.actions,
        hurry=scaled.hurry or served.hurry,
    )


def _application(before: PoolStatus, current: ClusterState | None, revision: str) -> Application:
    """Tries are counted anew for each revision: none waits longer because another failed, and one that comes back is
    left as it is."""
    if before.revision in {"", revision}:
        return before.application
    if current is None:
        return Application()
    return before.application if current.serve is None else _as_deployed(current)


def _as_deployed(lane: ClusterState) -> Application:
    """An older revision's application is left as it is."""
    return Application(attempt=lane.serve.attempt or 0) if lane.serve is not None else Application()


def _renewing(lane: ClusterState, observed: Observed) -> bool:
    """Whether older RayClusters still have groups that this one is to take over."""
    return any(not pod.head and pod.cluster != lane.cluster.name for pod in observed.view.pods)


def _may_sleep(observed: Observed, lane: ClusterState, idle_since: float | None) -> bool:
    idle = observed.pool.spec.idle
    if idle.mode != "cluster" or idle_since is None or not lane.empty:
        return False
    told = lane.serve is None or lane.serve.status is None or lane.serve.target == 0
    return told and observed.now - idle_since >= idle.after_seconds


def _drains(
    observed: Observed, every: Sequence[ClusterState], scaled: Iterable[Scaled]
) -> tuple[tuple[Drain, ...], tuple[Action, ...]]:
    """Who is told to take no more tasks, and who may again. Its record is written before its mark is set."""
    known = {drain.group: drain for drain in observed.pool.status.drains}
    if observed.store is None:
        return observed.pool.status.drains, ()
    chosen = {group.id: group for one in scaled for unit in one.victims for group in unit.groups}
    staying = {group.id: lane for lane in every for unit in lane.units for group in unit.groups}
    reopened = set(observed.pool.status.closed)
    records: list[Drain] = []
    marks: list[Action] = []
    for group in observed.store.groups:
        told = known.get(group.id)
        if group.id in chosen:
            if told is None or (not group.drain and observed.now - told.since > MARK_S):
                now = round(observed.now, 3)
                deadline = now + MARK_S + observed.pool.spec.drain_seconds + RELEASE_S
                told = Drain(group=group.id, since=now, deadline=deadline)
            records.append(told)
            if not group.drain:
                marks.append(MarkDrain(group=group.id, on=True))
        elif group.id in staying and (told is not None or reopened.intersection(group.hosts)):
            if group.drain:
                cluster = staying[group.id].cluster
                marks.append(MarkDrain(group=group.id, on=False, cluster=cluster, hosts=group.hosts))
                if told is not None:
                    records.append(told)  # forgotten once the mark is seen to be gone
        elif told is not None:
            records.append(told)  # its hosts are on their way out
    return tuple(records), tuple(marks)


def _closed(
    observed: Observed, every: Sequence[ClusterState], scaled: Sequence[Scaled]
) -> tuple[tuple[str, ...], tuple[Action, ...], tuple[Action, ...]]:
    """The hosts that are closed, those to close now (before they are named), and those to open again.

    Opening is done before it is written down, and closing after: a successor never misses a closed host.
    """
    before = observed.pool.status.closed
    if observed.store is None:
        return before, (), ()
    chosen = {host for one in scaled for unit in (*one.victims, *one.gone) for host in unit.hosts}
    going = tuple(sorted({host for one in scaled for unit in one.gone for host in unit.hosts}))
    opens: list[Action] = []
    marked: set[str] = set()
    staying: set[str] = set()
    for lane in every:
        here = {host for replica in lane.replicas for host in replica.hosts} - chosen
        staying |= here
        marked |= {host for group in lane.groups if group.drain for host in group.hosts}
        again = tuple(host for host in before if host in here and host in observed.store.closed)
        if again:
            opens.append(CordonHosts(hosts=again, closed=False, cluster=lane.cluster))
    there = {pod.name for lane in every for pod in lane.workers}
    # One with a group that was marked at birth is remembered until that mark is gone.
    kept = [host for host in before if host in there and (host not in staying or host in marked)]
    ajar = tuple(host for host in going if host not in observed.store.closed)
    closes = (CordonHosts(hosts=ajar),) if ajar else ()
    return tuple(dict.fromkeys((*kept, *going))), closes, tuple(opens)


def _requeue_after(
    observed: Observed, found: PlanInputs, courses: Sequence[ClusterPlan], actions: Sequence[Action]
) -> float:
    spec, now = observed.pool.spec, observed.now
    if any(course.hurry for course in courses):
        return REQUEUE_FAST_S
    moments = [REQUEUE_ZERO_S]
    awake = [course.lane for course in courses if not course.lane.cluster.suspend]
    if awake:
        moments.append(REQUEUE_IDLE_S)
    if actions or any(not lane.settled or lane.serve is None for lane in awake):
        moments.append(REQUEUE_ACTIVE_S)
    if found.problems:
        moments.append(BLOCKED_S)
    if found.wake.phase == WakePhase.DETECT:
        moments.append(SILENT_S)
    moments += [drain.deadline - now for drain in found.drains]
    change = schedule.next_change_s(spec, now)
    if change is not None:
        moments.append(change)
    if found.idle_since is not None and spec.idle.mode == "cluster" and awake:
        moments.append(found.idle_since + spec.idle.after_seconds - now)
    return max(REQUEUE_FAST_S, min(moments))
