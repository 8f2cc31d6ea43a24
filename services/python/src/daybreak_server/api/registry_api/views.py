"""Turns records of the registry into what clients see. Only ``trusted`` callers see the URLs of workers, the
``source`` and ``args`` of models, and the last lines that engines printed. Everyone sees the line in which an engine
says why it could not start.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict

from daybreak.wire import (
    Model,
    ModelList,
    ModelPair,
    ModelState,
    ServingHealth,
    ServingPoolHealth,
    Wake,
    Worker,
    WorkerGpu,
    WorkerList,
    WorkerModel,
    WorkerModelState,
)
from daybreak_server.api.intake.catalog import PoolEntry
from daybreak_server.api.routing.model_routers import view_of, wake_of
from daybreak_server.api.serializers import to_datetime
from daybreak_server.domain.models import ModelRecord, ReplicaReport, WorkerRecord, public_reason
from daybreak_server.domain.placement import HOST
from daybreak_server.ports.registry import RegistryView

OWNER = "daybreak"
_WAKING = frozenset({ModelState.PLACING, ModelState.STARTING})


def model(registry: RegistryView, alias: str, *, trusted: bool) -> Model | None:
    """A model as clients see it; ``None`` if it is not registered."""
    record, shown = registry.models.get(alias), view_of(registry, alias)
    if record is None or shown is None:
        return None
    state = ModelState(shown.state.value)
    reason = shown.reason if trusted else public_reason(record, shown.reason)
    wake = None
    if state in _WAKING:
        known = registry.plan.wakes.get(alias)
        since = to_datetime(known.since_ms) if known is not None else None
        wake = Wake.model_validate({**wake_of(registry, alias, shown), "since": since})
    return Model(
        id=alias,
        created=record.created_ms // 1000,
        owned_by=OWNER,
        state=state,
        reason=reason or None,
        source=record.source if trusted else None,
        engine=record.engine,
        args=dict(record.args) if trusted else None,
        memory_bytes=record.memory_bytes,
        gpus=record.gpus,
        replicas=record.replicas,
        min_replicas=record.min_replicas,
        target_load=record.target_load,
        idle_s=record.idle_s,
        fallback=record.fallback,
        wanted=shown.wanted,
        ready=shown.ready,
        workers=list(shown.workers),
        wake=wake,
    )


def pool(entry: PoolEntry) -> Model:
    """The entry of a pool in the list of models. The pool answers requests or serves sessions."""
    options = entry.settings.workload_options
    pairs = [ModelPair.model_validate(asdict(pair)) for pair in entry.spec.pairs(options)]
    return Model(
        id=entry.name,
        created=0,
        owned_by=OWNER,
        pool=entry.name,
        kind=entry.spec.kind,
        pairs=pairs or None,
        notice=entry.spec.notice(options) or None,
    )


def model_list(registry: RegistryView, pools: Iterable[Model], *, trusted: bool) -> ModelList:
    """All models, sorted by alias, and then the pools."""
    models = (model(registry, alias, trusted=trusted) for alias in sorted(registry.models))
    return ModelList(data=[*(found for found in models if found is not None), *pools])


def worker(record: WorkerRecord, models: Mapping[str, ModelRecord], *, trusted: bool) -> Worker:
    """A worker as clients see it."""
    return Worker(
        id=record.id,
        url=record.url if trusted else None,
        version=record.version,
        engines=sorted(record.engines),
        draining=record.draining,
        gpus=[
            WorkerGpu(
                index=gpu.index,
                name=gpu.name,
                memory_bytes=gpu.memory_bytes,
                memory_free_bytes=gpu.memory_free_bytes,
            )
            for gpu in record.gpus
        ],
        memory_bytes=record.memory_bytes,
        memory_free_bytes=record.memory_free_bytes,
        models=[_replica(report, models.get(report.alias), trusted=trusted) for report in record.replicas],
    )


def worker_list(registry: RegistryView, *, trusted: bool) -> WorkerList:
    """All workers that hold their lease."""
    return WorkerList(
        workers=[worker(record, registry.models, trusted=trusted) for record in registry.workers],
        manager=registry.manager,
    )


def health(registry: RegistryView, pools: Mapping[str, ServingPoolHealth]) -> ServingHealth:
    """The manager, the number of workers, the number of models in each state, and the pools that serve requests or
    sessions."""
    shown = (view_of(registry, alias) for alias in registry.models)
    counts = Counter(ModelState(view.state.value) for view in shown if view is not None)
    return ServingHealth(
        manager=registry.manager, workers=len(registry.workers), models=dict(counts), pools=dict(pools)
    )


def _replica(report: ReplicaReport, record: ModelRecord | None, *, trusted: bool) -> WorkerModel:
    reason = report.reason
    if not trusted:
        reason = public_reason(record, reason) if record is not None else ""
    return WorkerModel(
        alias=report.alias,
        state=WorkerModelState(report.state.value),
        gpus=[index for index in report.devices if index != HOST],
        reason=reason or None,
        last_lines=list(report.last_lines) if trusted else [],
        requests=report.requests,
        capacity=report.capacity,
    )
