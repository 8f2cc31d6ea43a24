"""Models that workers outside Ray serve: what is registered, how many replicas run, and what clients see of them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from daybreak_server.domain.placement import HOST, Placement, Replica, WantedModel, Worker


class ModelState(StrEnum):
    """The states of a model, from its registration to its end."""

    REGISTERED = "registered"
    """No replica runs. The next request starts one, or if the model has ``min_replicas``, one is about to start."""
    PLACING = "placing"
    """A replica is wanted, and no worker has room for it."""
    STARTING = "starting"
    """A worker starts a replica."""
    READY = "ready"
    """At least one replica answers requests."""
    DRAINING = "draining"
    """The model has been deleted, and its replicas finish their requests."""
    FAILED = "failed"
    """No replica is ready, and the workers could not start one. They try again."""


class ReplicaState(StrEnum):
    """What a worker reports about a replica."""

    STARTING = "starting"
    READY = "ready"
    DRAINING = "draining"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRecord:
    """A model as it was registered."""

    alias: str
    """The name by which clients ask for it."""
    source: str
    """What the engine loads: a folder, a file, or the name of a model on a hub."""
    engine: str
    args: Mapping[str, object] = field(default_factory=dict)
    memory_bytes: int | None = None
    """Memory of one replica; ``None`` if unknown."""
    gpus: int = 1
    """GPUs of one replica."""
    replicas: int = 1
    """The maximum number of replicas."""
    min_replicas: int = 0
    """How many replicas run even without any request."""
    target_load: float = 8.0
    """The requests that one replica should have."""
    created_ms: int = 0
    fallback: str | None = None
    """The alias of the model that answers while no replica is ready."""
    idle_s: float = 300.0
    """How long the model must have had no request before replicas beyond `min_replicas` stop."""
    deleted: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaReport:
    """What a worker says about one replica."""

    alias: str
    state: ReplicaState
    devices: tuple[int, ...] = (HOST,)
    reason: str = ""
    last_lines: tuple[str, ...] = ()
    """The last lines of its engine's output, if it failed."""
    requests: int = 0
    capacity: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A GPU of a worker."""

    index: int
    name: str
    memory_bytes: int
    memory_free_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerRecord:
    """A worker that holds its lease."""

    id: str
    url: str
    """Where gateways reach it."""
    engines: frozenset[str]
    devices: Mapping[int, int]
    """The memory in bytes that models may use, by index of the GPU. ``{HOST: bytes}`` for a worker without GPUs."""
    draining: bool = False
    replicas: tuple[ReplicaReport, ...] = ()
    version: str = ""
    gpus: tuple[Gpu, ...] = ()
    memory_bytes: int = 0
    """Memory of its machine."""
    memory_free_bytes: int = 0
    seen_ms: int = field(default=0, compare=False)
    """When it last registered or sent a heartbeat, on the clock of the store; 0 if that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Demand:
    """The requests for a model, in all gateways together."""

    requests: int = 0
    """Requests that wait or are being answered."""
    idle_s: float = math.inf
    """How long there has been no request; 0 while there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelView:
    """What clients see of a model."""

    state: ModelState
    reason: str = ""
    """Why it is in this state, and what to do; empty if the state needs no explanation."""
    wanted: int = 0
    ready: int = 0
    workers: tuple[str, ...] = ()
    """The workers of its ready replicas, sorted; a worker with two replicas is listed twice."""


def public_reason(model: ModelRecord, reason: str) -> str:
    """``reason`` for clients: with the model's alias in place of its source, which an engine's output may name."""
    return re.sub(rf"(?<!\w){re.escape(model.source)}(?!\w)", lambda _: model.alias, reason)


def wanted_replicas(model: ModelRecord, demand: Demand, *, placed: int) -> int:
    """How many replicas of a model should run.

    The number rises with the demand at once. If the demand falls, the number falls only when the model has had no
    request for its ``idle_s``, because loading a model again costs more than keeping it loaded.

    :param placed: how many replicas the model has now.
    """
    if model.deleted:
        return 0
    needed = math.ceil(demand.requests / model.target_load)
    if demand.idle_s < model.idle_s:
        needed = max(needed, min(placed, model.replicas), 1)
    return max(model.min_replicas, min(needed, model.replicas))


def wanted_model(model: ModelRecord, replicas: int) -> WantedModel:
    """A model and its wanted replicas, for :func:`~daybreak_server.domain.placement.place`."""
    return WantedModel(
        alias=model.alias,
        engine=model.engine,
        replicas=replicas,
        memory_bytes=model.memory_bytes,
        devices=model.gpus,
        gpu_share=_gpu_share(model),
    )


_GPU_SHARES = {
    "vllm": ("gpu_memory_utilization", 0.9),
    "sglang": ("mem_fraction_static", 0.9),
}
"""By engine: the option that sets which share of its GPUs the engine reserves, and the default of that option."""


def _gpu_share(model: ModelRecord) -> float:
    """The share of each GPU that the engine takes.

    The options of vLLM and SGLang count for every engine, because a user's program may wrap one of the two.
    """
    args = {name.replace("-", "_"): value for name, value in model.args.items()}
    _, share = _GPU_SHARES.get(model.engine, ("", 0.0))
    for name, _ in _GPU_SHARES.values():
        if name in args:
            try:
                share = float(str(args[name]))
            except ValueError:
                continue  # the engine itself reports the invalid value
    return min(max(share, 0.0), 1.0)


def placeable(worker: WorkerRecord) -> Worker:
    """A worker, for :func:`~daybreak_server.domain.placement.place`."""
    return Worker(
        id=worker.id, engines=worker.engines, devices=dict(worker.devices), draining=worker.draining
    )


def assignments(placement: Placement, worker: str) -> tuple[Replica, ...]:
    """The replicas that a worker should run."""
    return tuple(replica for replica in placement.replicas if replica.worker == worker)


def view(
    model: ModelRecord, *, wanted: int, placement: Placement, workers: Iterable[WorkerRecord]
) -> ModelView:
    """What clients see of a model."""
    reports = [
        (worker.id, report)
        for worker in sorted(workers, key=lambda worker: worker.id)
        for report in worker.replicas
        if report.alias == model.alias
    ]
    ready = tuple(worker for worker, report in reports if report.state is ReplicaState.READY)
    state, reason = _state(model, wanted, placement, reports)
    return ModelView(state=state, reason=reason, wanted=wanted, ready=len(ready), workers=ready)


def _state(
    model: ModelRecord, wanted: int, placement: Placement, reports: list[tuple[str, ReplicaReport]]
) -> tuple[ModelState, str]:
    if model.deleted:
        return ModelState.DRAINING, "It has been deleted, and finishes its requests."
    for reported, state in _BEST_FIRST.items():
        for worker, report in reports:
            if report.state is reported:
                return state, _reason(state, worker, report, placement)
    for replica in placement.replicas:
        if replica.alias == model.alias:
            return ModelState.STARTING, f"Worker {replica.worker} will start it."
    if wanted:
        return ModelState.PLACING, placement.unplaced.get(model.alias, "")
    if model.min_replicas:
        return ModelState.REGISTERED, "It is about to be placed on a worker."
    return ModelState.REGISTERED, "The first request starts it."


_BEST_FIRST = {
    ReplicaState.READY: ModelState.READY,
    ReplicaState.STARTING: ModelState.STARTING,
    ReplicaState.FAILED: ModelState.FAILED,
}
"""The state of a model by the state of its best replica, the best first."""


def _reason(state: ModelState, worker: str, report: ReplicaReport, placement: Placement) -> str:
    if state is ModelState.READY:
        return placement.unplaced.get(report.alias, "")
    if state is ModelState.FAILED:
        return f"Worker {worker} could not start it: {report.reason}"
    return report.reason or f"Worker {worker} starts it."
