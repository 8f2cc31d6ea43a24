"""What the models need now: how many replicas, where, and how many workers. Pure.

Planning is deterministic and idempotent: a view that already has the plan gives the same plan again, until something
else in the view changes (models, workers, demand or the time). So any process may plan. If a manager is killed and
another one takes over, the plan stays the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from daybreak_server.domain.models import (
    Demand,
    ModelRecord,
    ReplicaState,
    placeable,
    wanted_model,
    wanted_replicas,
)
from daybreak_server.domain.placement import Placement, Replica, WantedModel, place
from daybreak_server.ports.registry import ModelWake, PlacementPlan, RegistryView


def plan(view: RegistryView) -> PlacementPlan:
    """The plan for the registry as it is."""
    present = view.plan.spread.without_extra(view.plan.placement)
    wanted = _wanted(view, present)
    current, moves = view.plan.spread.settle(wanted, present.replicas, view.workers)
    placement = _place(view, wanted, current)
    still_wanted = _wanted(view, placement)
    if still_wanted != wanted:
        # Some replicas were wanted only because workers had loaded them. These workers are lost, and no other has room.
        wanted, placement = still_wanted, _place(view, still_wanted, placement.replicas)
    placed = _counts(placement)
    lacking = sum(replicas - placed[alias] for alias, replicas in wanted.items())
    placement, moves = moves.advance(_models(view, wanted), placement, view.workers, now_ms=view.now_ms)
    return PlacementPlan(
        placement=placement,
        wanted=wanted,
        wakes=_wakes(view, wanted),
        spread=moves,
        workers_wanted=len({replica.worker for replica in placement.replicas}) + lacking,
    )


def removable(view: RegistryView) -> list[str]:
    """The deleted models that have no replica any more, neither on a worker nor in the plan of the view."""
    held = {replica.alias for worker in view.workers for replica in worker.replicas}
    held.update(replica.alias for replica in view.plan.placement.replicas)
    return [alias for alias, model in view.models.items() if model.deleted and alias not in held]


def _counts(placement: Placement) -> Counter[str]:
    return Counter(replica.alias for replica in placement.replicas)


def _wanted(view: RegistryView, present: Placement) -> dict[str, int]:
    """How many replicas each model should have. Models that should have none are absent."""
    placed = _counts(present)
    replicas = {
        alias: wanted_replicas(model, view.demand.get(alias, Demand()), placed=placed[alias])
        for alias, model in view.models.items()
    }
    return {alias: count for alias, count in replicas.items() if count}


def _models(view: RegistryView, wanted: dict[str, int]) -> list[WantedModel]:
    return [wanted_model(view.models[alias], replicas) for alias, replicas in wanted.items()]


def _place(view: RegistryView, wanted: dict[str, int], present: Iterable[Replica]) -> Placement:
    return place(_models(view, wanted), [placeable(worker) for worker in view.workers], present)


def _wakes(view: RegistryView, wanted: dict[str, int]) -> dict[str, ModelWake]:
    ready = {
        replica.alias
        for worker in view.workers
        for replica in worker.replicas
        if replica.state is ReplicaState.READY
    }
    wakes = {}
    for alias, model in view.models.items():
        before = view.plan.wakes.get(alias, ModelWake())
        wake = _wake(view, model, before, wanted=alias in wanted, ready=alias in ready)
        if wake != ModelWake():
            wakes[alias] = wake
    return wakes


def _wake(
    view: RegistryView, model: ModelRecord, before: ModelWake, *, wanted: bool, ready: bool
) -> ModelWake:
    if ready and before.since_ms is not None:
        return ModelWake(last_s=max(0.0, (view.now_ms - before.since_ms) / 1000))
    if wanted and not ready and not model.deleted:
        return ModelWake(
            since_ms=view.now_ms if before.since_ms is None else before.since_ms, last_s=before.last_s
        )
    return ModelWake(last_s=before.last_s)
