"""Turns requests about workers and models into records of the registry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from daybreak.wire import (
    AssignedModel,
    RegisterModelRequest,
    WorkerGpu,
    WorkerHeartbeat,
    WorkerModel,
    WorkerRegistration,
)
from daybreak_server.domain.models import Gpu, ModelRecord, ReplicaReport, ReplicaState, WorkerRecord
from daybreak_server.domain.placement import HOST, Replica

MAX_REASON_CHARS = 500
MAX_LINES = 30
MAX_LINE_CHARS = 300
"""These three limits bound the text that the registry keeps about a replica, because all gateways read that text each
second."""


def registered_worker(worker: WorkerRegistration, *, url: str) -> WorkerRecord:
    """The record of a worker that registers. The record has no replicas, because only heartbeats report replicas."""
    return WorkerRecord(
        id=worker.id,
        url=url,
        version=worker.version,
        engines=frozenset(worker.engines),
        devices=_devices(worker.gpus, worker.memory_bytes),
        gpus=_gpus(worker.gpus),
        memory_bytes=worker.memory_bytes,
        memory_free_bytes=worker.memory_free_bytes,
    )


def reported_worker(worker: str, heartbeat: WorkerHeartbeat) -> WorkerRecord:
    """The record of a heartbeat. It has no URL, engines or version: the registry keeps those of the registration."""
    return WorkerRecord(
        id=worker,
        url="",
        engines=frozenset(),
        devices=_devices(heartbeat.gpus, heartbeat.memory_bytes),
        draining=heartbeat.draining,
        replicas=tuple(_report(model) for model in heartbeat.models),
        gpus=_gpus(heartbeat.gpus),
        memory_bytes=heartbeat.memory_bytes,
        memory_free_bytes=heartbeat.memory_free_bytes,
    )


def registered_model(model: RegisterModelRequest, *, now_ms: int, idle_s: float) -> ModelRecord:
    """The record of a model that is registered. The argument ``idle_s`` applies if the request has no ``idle_s``."""
    args = model.engine_args
    parallel = args.get("tensor_parallel_size")
    gpus = model.gpus or (parallel if isinstance(parallel, int) and parallel > 0 else 1)
    return ModelRecord(
        alias=model.alias,
        source=model.source,
        engine=model.engine,
        args=args,
        memory_bytes=model.memory_bytes,
        gpus=gpus,
        replicas=model.replicas,
        min_replicas=model.min_replicas,
        target_load=model.target_load,
        created_ms=now_ms,
        fallback=model.fallback,
        idle_s=model.idle_s or idle_s,
    )


def assigned_models(replicas: Sequence[Replica], models: Mapping[str, ModelRecord]) -> list[AssignedModel]:
    """What a worker should run: its replicas of models that exist."""
    return [
        AssignedModel(
            alias=model.alias,
            source=model.source,
            engine=model.engine,
            args=dict(model.args),
            memory_bytes=model.memory_bytes,
            gpus=[index for index in replica.devices if index != HOST],
        )
        for replica in replicas
        if (model := models.get(replica.alias)) is not None and not model.deleted
    ]


def _devices(gpus: Sequence[WorkerGpu], memory_bytes: int) -> dict[int, int]:
    return {gpu.index: gpu.memory_bytes for gpu in gpus} or {HOST: memory_bytes}


def _gpus(gpus: Sequence[WorkerGpu]) -> tuple[Gpu, ...]:
    return tuple(
        Gpu(
            index=gpu.index,
            name=gpu.name,
            memory_bytes=gpu.memory_bytes,
            memory_free_bytes=gpu.memory_free_bytes,
        )
        for gpu in gpus
    )


def _report(model: WorkerModel) -> ReplicaReport:
    return ReplicaReport(
        alias=model.alias,
        state=ReplicaState(model.state.value),
        devices=tuple(model.gpus) or (HOST,),
        reason=(model.reason or "")[:MAX_REASON_CHARS],
        last_lines=tuple(line[:MAX_LINE_CHARS] for line in model.last_lines[-MAX_LINES:]),
        requests=max(0, model.requests),
        capacity=max(1, model.capacity),
    )
