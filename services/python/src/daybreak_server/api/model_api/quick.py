"""Stand-in until the real routes are merged."""

from __future__ import annotations
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from pydantic import ValidationError
from daybreak.wire import *  # noqa
from daybreak.wire import (
    ErrorCode,
    RegisterModelRequest,
    WorkerRegistration,
    WorkerHeartbeat,
    WorkerRegistered,
    WorkerAssignments,
    AssignedModel,
    Model,
    ModelDeleted,
)
from daybreak_server.api.errors import ApiError, from_validation
from daybreak_server.api.http.request_body import read_json
from daybreak_server.api.http.responses import json_response
from daybreak_server.api.routing.model_routers import model_not_found, view_of
from daybreak_server.domain.models import Gpu, ModelRecord, ReplicaReport, ReplicaState, WorkerRecord
from daybreak_server.domain.placement import HOST
from daybreak_server.ports.registry import UnknownWorkerError, WorkerTakenError


def router(ctx):
    r = APIRouter()
    S = ctx.services.settings.workers

    def devices(b):
        return {g.index: g.memory_bytes for g in b.gpus} or {HOST: b.memory_bytes}

    @r.post("/v1/workers")
    async def reg(request: Request) -> Response:
        b = WorkerRegistration.model_validate(await read_json(request, max_bytes=1 << 20))
        w = WorkerRecord(
            id=b.id,
            url=b.url,
            engines=frozenset(b.engines),
            devices=devices(b),
            version=b.version,
            memory_bytes=b.memory_bytes,
        )
        try:
            await ctx.services.registry.add_worker(w, incarnation=b.incarnation, lease_s=S.lease_s)
        except WorkerTakenError as e:
            raise ApiError(ErrorCode.CONFLICT, str(e))
        return json_response(WorkerRegistered(heartbeat_s=S.heartbeat_s, lease_s=S.lease_s), status=201)

    @r.put("/v1/workers/{id}")
    async def beat(request: Request, id: str) -> Response:
        b = WorkerHeartbeat.model_validate(await read_json(request, max_bytes=1 << 20))
        reps = tuple(
            ReplicaReport(
                alias=m.alias,
                state=ReplicaState(m.state.value),
                devices=tuple(m.gpus) or (HOST,),
                reason=m.reason or "",
                last_lines=tuple(m.last_lines),
                requests=m.requests,
                capacity=m.capacity,
            )
            for m in b.models
        )
        w = WorkerRecord(
            id=id,
            url="",
            engines=frozenset(),
            devices=devices(b),
            draining=b.draining,
            replicas=reps,
            gpus=tuple(Gpu(**g.model_dump()) for g in b.gpus),
            memory_bytes=b.memory_bytes,
            memory_free_bytes=b.memory_free_bytes,
        )
        try:
            assigned = await ctx.services.registry.renew_worker(
                w, incarnation=b.incarnation, lease_s=S.lease_s
            )
        except UnknownWorkerError as e:
            raise ApiError(ErrorCode.NOT_FOUND, str(e))
        except WorkerTakenError as e:
            raise ApiError(ErrorCode.CONFLICT, str(e))
        models = (await ctx.registry_cache.get()).models
        out = [
            AssignedModel(
                alias=a.alias,
                source=models[a.alias].source,
                engine=models[a.alias].engine,
                args=dict(models[a.alias].args),
                memory_bytes=models[a.alias].memory_bytes,
                gpus=[d for d in a.devices if d != HOST],
            )
            for a in assigned
            if a.alias in models
        ]
        return json_response(WorkerAssignments(heartbeat_s=S.heartbeat_s, models=out))

    @r.delete("/v1/workers/{id}")
    async def bye(id: str, incarnation: str) -> Response:
        await ctx.services.registry.remove_worker(id, incarnation=incarnation)
        return Response(status_code=204)

    def shown(view, alias):
        m = view.models.get(alias)
        if m is None:
            raise model_not_found(alias)
        v = view_of(view, alias)
        return Model(
            id=alias,
            created=m.created_ms // 1000,
            owned_by="daybreak",
            state=v.state.value,
            reason=v.reason,
            ready=v.ready,
            wanted=v.wanted,
            workers=list(v.workers),
            source=m.source,
            engine=m.engine,
        )

    @r.post("/v1/models/register")
    async def register(request: Request) -> Response:
        try:
            b = RegisterModelRequest.model_validate(await read_json(request, max_bytes=1 << 20))
        except ValidationError as e:
            raise from_validation(e)
        m = ModelRecord(
            alias=b.alias,
            source=b.source,
            engine=b.engine,
            args=b.engine_args,
            memory_bytes=b.memory_bytes,
            gpus=b.gpus or 1,
            replicas=b.replicas,
            min_replicas=b.min_replicas,
            target_load=b.target_load,
            idle_s=b.idle_s or S.idle_s,
            fallback=b.fallback,
            created_ms=ctx.services.now_ms(),
        )
        if not await ctx.services.registry.add_model(m):
            raise ApiError(ErrorCode.CONFLICT, "exists")
        return json_response(shown(await ctx.registry_cache.refresh(), b.alias), status=201)

    @r.get("/v1/models/{alias:path}")
    async def show(alias: str) -> Response:
        return json_response(shown(await ctx.registry_cache.refresh(), alias))

    @r.delete("/v1/models/{alias:path}")
    async def delete(alias: str) -> Response:
        if await ctx.services.registry.mark_deleted(alias) is None:
            raise model_not_found(alias)
        await ctx.registry_cache.refresh()
        return json_response(ModelDeleted(id=alias))

    return r
