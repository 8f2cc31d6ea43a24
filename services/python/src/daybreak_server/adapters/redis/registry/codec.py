"""The JSON in which the registry keeps its records.

A newer version may have written a record, so readers ignore fields that they do not know.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any, TypeVar

from daybreak_server.adapters.redis.codec import text
from daybreak_server.domain.models import (
    Demand,
    Gpu,
    ModelRecord,
    ReplicaReport,
    ReplicaState,
    WorkerRecord,
)
from daybreak_server.domain.placement import Placement, Replica
from daybreak_server.domain.spread import Spread, SpreadMove
from daybreak_server.ports.registry import ModelWake, PlacementPlan, RegistryView

_FIXED = ("url", "engines", "version")
_STATES = {state.value: state for state in ReplicaState}
_STATE_UNKNOWN = ReplicaState.STARTING
"""Stands in for a state that only a newer version knows: the replica exists, but gets no requests."""
_T = TypeVar("_T")


def dump(value: Any) -> str:
    """Compact JSON. Equal values give equal text."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def model_json(model: ModelRecord) -> str:
    """The JSON of a model, without the mark of deletion."""
    return dump({name: value for name, value in asdict(model).items() if name != "deleted"})


def model_of(stored: Any) -> ModelRecord:
    """The model from its stored form: the mark of deletion (``0`` or ``1``), then the JSON of :func:`model_json`."""
    whole = text(stored)
    return _known(ModelRecord, {**json.loads(whole[1:]), "deleted": whole[0] == "1"})


def fixed_json(worker: WorkerRecord) -> str:
    """The JSON of what a worker sends only when it registers."""
    return dump({"url": worker.url, "engines": sorted(worker.engines), "version": worker.version})


def state_json(worker: WorkerRecord) -> str:
    """The JSON of what a worker sends with each heartbeat."""
    state = {name: value for name, value in asdict(worker).items() if name not in {*_FIXED, "id", "seen_ms"}}
    return dump(state)


def summary_json(worker: WorkerRecord) -> str:
    """The JSON of the fields whose changes other processes must see at once. Loads and free memory are left out."""
    replicas = sorted(
        (replica.alias, replica.state, replica.devices, replica.reason, replica.capacity)
        for replica in worker.replicas
    )
    return dump([worker.draining, sorted(worker.devices.items()), replicas])


def worker_of(worker_id: str, fixed: str, state: str, *, seen_ms: int) -> WorkerRecord:
    """A worker from the JSON of :func:`fixed_json` and of :func:`state_json`."""
    data = {**json.loads(state), **json.loads(fixed), "id": worker_id, "seen_ms": seen_ms}
    data["engines"] = frozenset(data["engines"])
    data["devices"] = {int(index): size for index, size in data["devices"].items()}
    data["gpus"] = tuple(_known(Gpu, gpu) for gpu in data.get("gpus", ()))
    data["replicas"] = tuple(_report(report) for report in data.get("replicas", ()))
    return _known(WorkerRecord, data)


def plan_json(plan: PlacementPlan) -> str:
    """The JSON of a plan."""
    return dump(
        {
            "replicas": [[r.alias, r.worker, list(r.devices)] for r in plan.placement.replicas],
            "spread": {alias: _move_json(move) for alias, move in plan.spread.moves.items()},
            "unplaced": dict(plan.placement.unplaced),
            "wanted": dict(plan.wanted),
            "wakes": {alias: [wake.since_ms, wake.last_s] for alias, wake in plan.wakes.items()},
            "workers_wanted": plan.workers_wanted,
        }
    )


def plan_of(stored: Any) -> PlacementPlan:
    """The plan from the JSON of :func:`plan_json`, or an empty plan if none is stored."""
    data = json.loads(text(stored) or "{}")
    replicas = (
        Replica(alias=alias, worker=worker, devices=tuple(devices))
        for alias, worker, devices, *_ in data.get("replicas", ())
    )
    return PlacementPlan(
        placement=Placement(replicas=tuple(replicas), unplaced=data.get("unplaced", {})),
        wanted=data.get("wanted", {}),
        wakes={
            alias: ModelWake(since_ms=since, last_s=last)
            for alias, (since, last, *_) in data.get("wakes", {}).items()
        },
        spread=Spread(moves={alias: _move_of(alias, move) for alias, move in data.get("spread", {}).items()}),
        workers_wanted=data.get("workers_wanted", 0),
    )


def _move_json(move: SpreadMove) -> list[Any]:
    new = move.replica
    return [move.since_ms, move.failures, *([new.worker, *new.devices] if new is not None else [])]


def _move_of(alias: str, stored: Sequence[Any]) -> SpreadMove:
    since_ms, failures, *new = stored
    replica = Replica(alias=alias, worker=new[0], devices=tuple(new[1:])) if new else None
    return SpreadMove(since_ms=since_ms, failures=failures, replica=replica)


def view_of(reply: Sequence[Any]) -> RegistryView:
    """The view from the reply of the operation ``view`` or ``tick``."""
    now, version, models, workers, demand, plan, manager = reply
    return RegistryView(
        now_ms=int(now),
        version=int(version),
        models={text(alias): model_of(stored) for alias, stored in sorted(_groups(models, 2))},
        workers=tuple(
            sorted(
                (
                    worker_of(text(name), text(fixed), text(state), seen_ms=int(seen))
                    for name, fixed, state, seen in _groups(workers, 4)
                ),
                key=lambda worker: worker.id,
            )
        ),
        demand={
            text(alias): Demand(
                requests=int(requests), idle_s=0.0 if int(requests) else int(silent_ms) / 1000
            )
            for alias, requests, silent_ms in _groups(demand, 3)
        },
        plan=plan_of(plan),
        manager=text(manager) or None,
    )


def _report(data: Mapping[str, Any]) -> ReplicaReport:
    return _known(
        ReplicaReport,
        {
            **data,
            "state": _STATES.get(data["state"], _STATE_UNKNOWN),
            "devices": tuple(data["devices"]),
            "last_lines": tuple(data.get("last_lines", ())),
        },
    )


def _known(kind: type[_T], data: Mapping[str, Any]) -> _T:
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in data.items() if name in names})


def _groups(flat: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    return zip(*[iter(flat)] * size, strict=True)
