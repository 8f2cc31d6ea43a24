"""Routes that create or estimate tasks: submit, generate, batch, replay, estimate."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from daybreak.wire import BatchRequest, Estimate
from daybreak_server.api import serializers
from daybreak_server.api.auth.principal import Caller, Principal
from daybreak_server.api.dependencies import Dependencies
from daybreak_server.api.errors import ApiError, from_store, from_validation, request_id_of
from daybreak_server.api.http.request_body import idempotency_key, read_json, trace_context
from daybreak_server.api.http.responses import json_response
from daybreak_server.api.intake.bulk_files import with_artifact_key
from daybreak_server.api.intake.catalog import PoolEntry
from daybreak_server.api.serializers import Json
from daybreak_server.api.task_api import openapi_specs
from daybreak_server.api.task_api.fast_path import Handler
from daybreak_server.api.task_api.problem_json import problem
from daybreak_server.domain.pools import GroupState
from daybreak_server.domain.task_changes import ChangeKind
from daybreak_server.domain.tasks import NewTask
from daybreak_server.observability.task_log import log_submit, log_task
from daybreak_server.ports.store_errors import ConflictError, IdempotencyMismatchError, StoreError
from daybreak_server.ports.tasks import Submitted
from daybreak_server.ports.tracing import SubmitTrace


def fast_paths(ctx: Dependencies) -> dict[str, Handler]:
    """The fast-path handlers by path. The routes of these paths call the same handlers."""
    max_bytes = ctx.services.settings.http.max_body_bytes

    async def submit(request: Request, caller: Principal) -> Response:
        data = await read_json(request, max_bytes=max_bytes)
        return await _submit_task(ctx, request, data, caller)

    async def generate(request: Request, caller: Principal) -> Response:
        data = await read_json(request, max_bytes=max_bytes)
        entry = ctx.catalog.default()
        return await _submit_task(ctx, request, {"pool": entry.name, "input": data}, caller)

    return {"/v1/tasks": submit, "/generate": generate}


def router(ctx: Dependencies) -> APIRouter:
    """The routes, bound to their dependencies."""
    routes = APIRouter(tags=["submit"])
    max_bytes = ctx.services.settings.http.max_body_bytes
    handlers = fast_paths(ctx)

    @routes.post("/v1/tasks", **openapi_specs.SUBMIT)
    async def submit(request: Request, caller: Caller) -> Response:
        """Submit a task. Once this responds, the task is stored and runs without further requests."""
        return await handlers["/v1/tasks"](request, caller)

    @routes.post("/generate", **openapi_specs.GENERATE)
    async def generate(request: Request, caller: Caller) -> Response:
        """Submit a task to the video pool. The body is the input itself."""
        return await handlers["/generate"](request, caller)

    @routes.post("/v1/tasks:batch", **openapi_specs.BATCH)
    async def batch(request: Request, caller: Caller) -> Response:
        """Submit up to 100 tasks. Each task is accepted or refused separately; the results are in the same order."""
        data = await read_json(request, max_bytes=max_bytes)
        return json_response(await _submit_batch(ctx, request, data, caller), status=207)

    @routes.post("/v1/tasks/{id}/replay", **openapi_specs.REPLAY)
    async def replay(request: Request, id: str, caller: Caller) -> Response:
        """Run an ended task again, as a new task that names the old one in `replay_of`."""
        record, _ = await ctx.record(caller, id)
        if not record.state.terminal:
            raise ConflictError(
                f"The task {record.id} has not ended, so it cannot be replayed. Wait for its end, or cancel it."
            )
        key, trace = idempotency_key(request), ctx.services.tracing.submit(trace_context(request))
        return await _store_task(ctx, ctx.submission.replay(record, key=key, trace=trace.context), trace)

    @routes.post("/v1/estimate", **openapi_specs.ESTIMATE)
    async def estimate(request: Request, caller: Caller) -> Response:
        """Estimate how long a task would wait and run, from the pool's own history. Checks the input as submit does."""
        data = await read_json(request, max_bytes=max_bytes)
        _, entry, params = ctx.submission.parse(data)
        return json_response(await _estimate(ctx, entry, entry.cost(params)))

    return routes


async def _submit_task(
    ctx: Dependencies, request: Request, data: dict[str, Any], caller: Principal
) -> Response:
    key, trace = idempotency_key(request), ctx.services.tracing.submit(trace_context(request))
    made = await _made(ctx, data, caller, key=key, trace=trace)
    if isinstance(made, Submitted):
        trace.stored(made.record, repeated=True)
        return await _submitted_response(ctx, made)
    return await _store_task(ctx, made, trace)


async def _made(
    ctx: Dependencies, data: dict[str, Any], caller: Principal, *, key: str | None, trace: SubmitTrace
) -> NewTask | Submitted:
    """Make the task that a submit asks for.

    If the file that the task names is gone, the request may repeat a submit that was accepted while the file existed.
    Then this returns the task that the earlier submit created.
    """
    store, tenant = ctx.services.store, caller.tenant
    try:
        filled = await with_artifact_key(data, catalog=ctx.catalog, store=store, tenant=tenant)
    except ApiError:
        if key is None:
            raise
        body_hash = ctx.submission.body_hash(data)
        earlier = await store.submitted(data["pool"], tenant, key=key, body_hash=body_hash)
        if earlier is None:
            raise
        return earlier
    return ctx.submission.make(filled, tenant=tenant, key=key, trace=trace.context, sent=data)


async def _store_task(ctx: Dependencies, task: NewTask, trace: SubmitTrace) -> Response:
    try:
        submitted = await ctx.submit_batcher.submit(task)
    except StoreError as exc:
        trace.refused(task.pool, error=from_store(exc).code.value)
        raise
    except BaseException as exc:  # for example, the client hung up; the task may still be stored
        trace.refused(task.pool, error=type(exc).__name__)
        raise
    trace.stored(submitted.record, repeated=submitted.repeated)
    _log_submitted(ctx, submitted)
    return await _submitted_response(ctx, submitted)


async def _submitted_response(ctx: Dependencies, submitted: Submitted) -> Response:
    shown = await ctx.task_json(submitted.record)
    headers = {"Location": shown["links"]["self"]}
    if submitted.record.trace_context is not None:
        headers["traceparent"] = submitted.record.trace_context.traceparent
    if submitted.repeated:
        return json_response(shown, headers={**headers, "Idempotent-Repeat": "true"})
    return json_response(shown, status=202, headers=headers)


def _log_submitted(ctx: Dependencies, submitted: Submitted) -> None:
    if submitted.repeated:
        return
    record = submitted.record
    trace_id = record.trace_context.trace_id if record.trace_context is not None else ""
    if ctx.services.settings.log.inputs:
        log_task(
            ChangeKind.SUBMITTED, record.id, tenant=record.tenant, trace_id=trace_id, input=record.input_json
        )
    else:
        log_submit(record.id, tenant=record.tenant, trace_id=trace_id)


async def _submit_batch(ctx: Dependencies, request: Request, data: dict[str, Any], caller: Principal) -> Json:
    try:
        bodies = BatchRequest.model_validate(data).tasks
    except ValidationError as exc:
        raise from_validation(exc) from exc
    key, context, request_id = idempotency_key(request), trace_context(request), request_id_of(request.scope)
    items: dict[int, Json] = {}

    async def add(index: int, submitted: Submitted) -> None:
        traces[index].stored(submitted.record, repeated=submitted.repeated)
        _log_submitted(ctx, submitted)
        shown = await ctx.task_json(submitted.record)
        items[index] = {"status": 200 if submitted.repeated else 202, "task": shown}

    by_pool: dict[str, list[tuple[int, NewTask]]] = {}
    traces: dict[int, SubmitTrace] = {}
    for index, body in enumerate(bodies):
        trace = traces[index] = ctx.services.tracing.submit(context)
        # A key from a header cannot contain NUL, so no such key can equal a key that is made here.
        own_key = None if key is None else f"{key}\x00{index}"
        try:
            made = await _made(ctx, body, caller, key=own_key, trace=trace)
        except (ApiError, IdempotencyMismatchError) as exc:
            items[index] = _batch_error(exc if isinstance(exc, ApiError) else from_store(exc), request_id)
        else:
            if isinstance(made, Submitted):
                await add(index, made)
            else:
                by_pool.setdefault(made.pool, []).append((index, made))
    for pool, tasks in by_pool.items():
        try:
            results = await _submit_to_pool(ctx, [task for _, task in tasks])
        except BaseException as exc:
            for index, _ in tasks:
                traces[index].refused(pool, error=type(exc).__name__)
            raise
        for (index, _), result in zip(tasks, results, strict=True):
            if isinstance(result, StoreError):
                error = from_store(result)
                traces[index].refused(pool, error=error.code.value)
                items[index] = _batch_error(error, request_id)
            else:
                await add(index, result)
    return {"object": "batch", "results": [items[index] for index in range(len(bodies))]}


async def _submit_to_pool(ctx: Dependencies, tasks: list[NewTask]) -> list[Submitted | StoreError]:
    try:
        return await ctx.services.store.submit(tasks)
    except StoreError as exc:  # Other pools may have accepted their tasks, so each task has its own result.
        return [exc for _ in tasks]


def _batch_error(error: ApiError, request_id: str | None) -> Json:
    return {"status": error.code.status, "error": problem(error, request_id).to_json()}


async def _estimate(ctx: Dependencies, entry: PoolEntry, cost: float) -> Estimate:
    view = await ctx.pool_views.get(entry.name)
    if view.seconds_per_cost is None:
        return Estimate(feasible=True)
    run_s = view.seconds_per_cost * cost
    groups = [group for group in view.groups if group.accepts_tasks]
    idle = sum(group.state is GroupState.IDLE for group in groups)
    wait_s: float | None
    if groups:  # Assume that the tasks ahead cost as much as this one, and that running tasks are half done.
        ahead = view.queued + 0.5 * sum(len(group.tasks) for group in groups)
        wait_s = 0.0 if idle > view.queued else run_s * ahead / len(groups)
    else:
        wait_s = serializers.wake_eta_s(view, ctx.services.now_ms())
    return Estimate(
        feasible=True,
        run_s=round(run_s, 1),
        wait_s=None if wait_s is None else round(wait_s, 1),
        gpu_seconds=round(run_s * entry.settings.ranks, 1),
    )
