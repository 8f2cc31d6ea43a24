"""What the models need now: how many replicas, where, and how many workers. Pure.

The same view gives the same plan, and the view with that plan in it gives the plan again, so any process may plan, and
a manager that is killed and replaced changes nothing.
"""

from __future__ import annotations

from collections import Counter

from daybreak_server.domain.models import (
    Demand,
    ModelRecord,
    ReplicaState,
    placeable,
    wanted_model,
    wanted_replicas,
)
from daybreak_server.domain.placement import place
from daybreak_server.ports.registry import Plan, RegistryView, Wake


def plan(view: RegistryView) -> Plan:
    """The plan for the registry as it is."""
    placed = Counter(replica.alias for replica in view.plan.placement.replicas)
    wanted = {
        alias: replicas
        for alias, model in view.models.items()
        if (replicas := wanted_replicas(model, view.demand.get(alias, Demand()), placed=placed[alias]))
    }
    placement = place(
        [wanted_model(view.models[alias], replicas) for alias, replicas in wanted.items()],
        [placeable(worker) for worker in view.workers],
        view.plan.placement.replicas,
    )
    now_placed = Counter(replica.alias for replica in placement.replicas)
    lacking = sum(replicas - now_placed[alias] for alias, replicas in wanted.items())
    return Plan(
        placement=placement,
        wanted=wanted,
        wakes=_wakes(view, wanted),
        workers_wanted=len({replica.worker for replica in placement.replicas}) + lacking,
    )


def removable(view: RegistryView) -> list[str]:
    """The deleted models of which no worker has a replica any more."""
    reported = {replica.alias for worker in view.workers for replica in worker.replicas}
    return [alias for alias, model in view.models.items() if model.deleted and alias not in reported]


def _wakes(view: RegistryView, wanted: dict[str, int]) -> dict[str, Wake]:
    ready = {
        replica.alias
        for worker in view.workers
        for replica in worker.replicas
        if replica.state is ReplicaState.READY
    }
    wakes = {}
    for alias, model in view.models.items():
        before = view.plan.wakes.get(alias, Wake())
        wake = _wake(view, model, before, wanted=alias in wanted, ready=alias in ready)
        if wake != Wake():
            wakes[alias] = wake
    return wakes


def _wake(view: RegistryView, model: ModelRecord, before: Wake, *, wanted: bool, ready: bool) -> Wake:
    if ready and before.since_ms is not None:
        return Wake(last_s=max(0.0, (view.now_ms - before.since_ms) / 1000))
    if wanted and not ready and not model.deleted:
        return Wake(
            since_ms=view.now_ms if before.since_ms is None else before.since_ms, last_s=before.last_s
        )
    return Wake(last_s=before.last_s)
