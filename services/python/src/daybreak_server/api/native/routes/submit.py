"""Routes that make tasks: submit, generate, batch, replay, estimate."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from daybreak.wire import BatchRequest, Estimate
from daybreak_server.api import serializers
from daybreak_server.api.auth.principal import Caller, Principal
from daybreak_server.api.dependencies import Dependencies, answer
from daybreak_server.api.http.request_body import idempotency_key, read_json, trace_context
from daybreak_server.api.native import openapi_specs
from daybreak_server.api.native.fast_path import Handler
from daybreak_server.api.problems import (
    ApiError,
    from_store,
    from_validation,
    request_id_of,
)
from daybreak_server.api.serializers import Json
from daybreak_server.api.store.catalog import PoolEntry
from daybreak_server.domain.pools import GroupState
from daybreak_server.domain.tasks import NewTask
from daybreak_server.ports.store_errors import ConflictError, StoreError
from daybreak_server.ports.tasks import Submitted


def lanes(ctx: Dependencies) -> dict[str, Handler]:
    """What comes in numbers: the same as the routes of these paths."""
    max_bytes = ctx.services.settings.http.max_body_bytes

    async def submit(request: Request, caller: Principal) -> Response:
        data = await read_json(request, max_bytes=max_bytes)
        return await _submit_one(ctx, request, data, caller)

    async def generate(request: Request, caller: Principal) -> Response:
        data = await read_json(request, max_bytes=max_bytes)
        entry = ctx.catalog.default()
        return await _submit_one(ctx, request, {"pool": entry.name, "input": data}, caller)

    return {"/v1/tasks": submit, "/generate": generate}


def router(ctx: Dependencies) -> APIRouter:
    """The routes, bound to their context."""
    routes = APIRouter(tags=["submit"])
    max_bytes = ctx.services.settings.http.max_body_bytes
    short = lanes(ctx)

    @routes.post("/v1/tasks", **openapi_specs.SUBMIT)
    async def submit(request: Request, caller: Caller) -> Response:
        """Submit a task. It is safe in the store when the answer comes; the work goes on without you."""
        return await short["/v1/tasks"](request, caller)

    @routes.post("/generate", **openapi_specs.GENERATE)
    async def generate(request: Request, caller: Caller) -> Response:
        """The short form of a submit to the video pool: the body is the input itself."""
        return await short["/generate"](request, caller)

    @routes.post("/v1/tasks:batch", **openapi_specs.BATCH)
    async def batch(request: Request, caller: Caller) -> Response:
        """Submit up to 100 tasks; each is taken or refused on its own, and answered in its place."""
        data = await read_json(request, max_bytes=max_bytes)
        return answer(await _batch(ctx, request, data, caller), status=207)

    @routes.post("/v1/tasks/{id}/replay", **openapi_specs.REPLAY)
    async def replay(request: Request, id: str, caller: Caller) -> Response:
        """Do an ended task once more, as a new task that names it in `replay_of`."""
        record, _ = await ctx.record(caller, id)
        if not record.state.terminal:
            raise ConflictError("A task can be replayed when it has ended; this one has not.")
        key, trace = idempotency_key(request), trace_context(request)
        task = ctx.submission.again(record, key=key, trace=trace)
        return await _accepted(ctx, task)

    @routes.post("/v1/estimate", **openapi_specs.ESTIMATE)
    async def estimate(request: Request, caller: Caller) -> Response:
        """What a task would take, from the pool's own history. Refuses what submit would refuse."""
        data = await read_json(request, max_bytes=max_bytes)
        _, entry, params = ctx.submission.parse(data)
        return answer(await _estimate(ctx, entry, entry.cost(params)))

    return routes


async def _submit_one(
    ctx: Dependencies, request: Request, data: dict[str, Any], caller: Principal
) -> Response:
    key, trace = idempotency_key(request), trace_context(request)
    return await _accepted(ctx, ctx.submission.make(data, tenant=caller.tenant, key=key, trace=trace))


async def _accepted(ctx: Dependencies, task: NewTask) -> Response:
    outcome = await ctx.submit_batcher.submit(task)
    shown = await _counted(ctx, outcome)
    headers = {"Location": shown["links"]["self"]}
    if outcome.replayed:
        return answer(shown, headers={**headers, "Idempotent-Replay": "true"})
    return answer(shown, status=202, headers=headers)


async def _counted(ctx: Dependencies, outcome: Submitted) -> Json:
    if not outcome.replayed:
        ctx.metrics.accepted(outcome.record.pool)
    return await ctx.show(outcome.record)


async def _batch(ctx: Dependencies, request: Request, data: dict[str, Any], caller: Principal) -> Json:
    try:
        wanted = BatchRequest.model_validate(data).tasks
    except ValidationError as exc:
        raise from_validation(exc) from exc
    key, trace, request_id = idempotency_key(request), trace_context(request), request_id_of(request)
    items: dict[int, Json] = {}
    by_pool: dict[str, list[tuple[int, NewTask]]] = {}
    for index, body in enumerate(wanted):
        try:
            task = ctx.submission.make(body, tenant=caller.tenant, trace=trace)
        except ApiError as exc:
            items[index] = _refused(exc, request_id)
            continue
        if key is not None:  # no visible key can hold a NUL, so these are never somebody else's
            task = replace(task, idempotency_key=f"{key}\x00{index}")
        by_pool.setdefault(task.pool, []).append((index, task))
    for tasks in by_pool.values():
        for (index, _), outcome in zip(tasks, await _submit_pool(ctx, [t for _, t in tasks]), strict=True):
            if isinstance(outcome, StoreError):
                items[index] = _refused(from_store(outcome), request_id)
            else:
                shown = await _counted(ctx, outcome)
                items[index] = {"status": 200 if outcome.replayed else 202, "task": shown}
    return {"object": "batch", "results": [items[index] for index in range(len(wanted))]}


async def _submit_pool(ctx: Dependencies, tasks: list[NewTask]) -> list[Submitted | StoreError]:
    try:
        return await ctx.services.store.submit(tasks)
    except StoreError as exc:  # other pools of the batch may have been taken: each task has its own answer
        return [exc for _ in tasks]


def _refused(exc: ApiError, request_id: str | None) -> Json:
    return {"status": exc.code.status, "error": exc.problem(request_id).to_json()}


async def _estimate(ctx: Dependencies, entry: PoolEntry, cost: float) -> Estimate:
    view = await ctx.numbers.get(entry.name)
    if view.seconds_per_cost is None:
        return Estimate(feasible=True)
    run_s = view.seconds_per_cost * cost
    groups = [g for g in view.groups if g.state.accepts_tasks]
    idle = sum(g.state is GroupState.IDLE for g in groups)
    wait_s: float | None
    if groups:  # those ahead are taken to be like this one, and those that run to be half done
        ahead = view.queued + 0.5 * view.running
        wait_s = 0.0 if idle > view.queued else run_s * ahead / len(groups)
    else:
        wait_s = serializers.wake_eta_s(view, ctx.services.now_ms())
    return Estimate(
        feasible=True,
        run_s=round(run_s, 1),
        wait_s=None if wait_s is None else round(wait_s, 1),
        gpu_seconds=round(run_s * entry.settings.ranks, 1),
    )
