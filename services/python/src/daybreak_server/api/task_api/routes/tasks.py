"""Routes about existing tasks: show, list, cancel, delete."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response

from daybreak.wire import TaskState
from daybreak.wire.tasks import MAX_LIST
from daybreak_server.api import serializers
from daybreak_server.api.auth.principal import Caller
from daybreak_server.api.dependencies import Dependencies
from daybreak_server.api.errors import MAX_FIELD_CHARS, invalid_field, task_not_found
from daybreak_server.api.http.responses import json_response
from daybreak_server.api.serializers import Json
from daybreak_server.api.task_api import openapi_specs, pagination
from daybreak_server.domain.tasks import State
from daybreak_server.ports.store_errors import ConflictError

_STATES = {
    public: frozenset(state for state in State if state.public.value == public.value) for public in TaskState
}

_LIST_PARAMETERS = ("pool", "state", "limit", "after", "order")


def router(ctx: Dependencies) -> APIRouter:
    """The routes, bound to their dependencies."""
    routes = APIRouter(tags=["tasks"])

    @routes.get("/v1/tasks/{id}", **openapi_specs.SHOW)
    async def show(id: str, caller: Caller) -> Response:
        """A task: its state, progress, queue position and files."""
        record, _ = await ctx.record(caller, id)
        return json_response(await ctx.task_json(record))

    @routes.get("/v1/tasks", **openapi_specs.LIST)
    async def list_tasks(
        request: Request,
        caller: Caller,
        *,
        pool: Annotated[str | None, Query(description="Only tasks of this pool.")] = None,
        state: Annotated[list[TaskState] | None, Query(description="Only tasks in these states.")] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_LIST)] = 20,
        after: Annotated[str | None, Query(description="The `next` of the previous page.")] = None,
        order: Annotated[
            Literal["desc", "asc"], Query(description="Newest first (`desc`) or oldest first (`asc`).")
        ] = "desc",
    ) -> Response:
        """Your tasks, page by page. A filtered page may have fewer tasks than `limit` and still have a `next`."""
        _refuse_unknown_parameters(request)
        pools = [entry.name for entry in ctx.catalog] if pool is None else [ctx.catalog.get(pool).name]
        query = pagination.Query(
            tenant=caller.tenant,
            states=frozenset().union(*(_STATES[s] for s in state)) if state else None,
            after=None if after is None else pagination.decode(after),
            limit=limit,
            newest_first=order == "desc",
        )
        return json_response(await _page(ctx, pools, query))

    @routes.post("/v1/tasks/{id}/cancel", **openapi_specs.CANCEL)
    async def cancel(id: str, caller: Caller) -> Response:
        """Cancel a task: at once while it waits, at the end of a step while it runs. An ended task is not changed."""
        record, _ = await ctx.record(caller, id)
        if record.state.terminal:
            return json_response(await ctx.task_json(record))
        changed = await ctx.services.store.cancel(record.id)
        if changed is None:
            raise task_not_found(record.id)
        had_ended = changed.state.terminal and changed.state is not State.CANCELLED
        return json_response(await ctx.task_json(changed), status=200 if had_ended else 202)

    @routes.delete("/v1/tasks/{id}", **openapi_specs.DELETE)
    async def delete(id: str, caller: Caller) -> Response:
        """Delete an ended task with its events and files, before its retention ends."""
        record, _ = await ctx.record(caller, id)
        if not record.state.terminal:
            raise ConflictError(
                f"The task {record.id} has not ended, so it cannot be deleted. Cancel it first."
            )
        await asyncio.to_thread(ctx.services.blobs.delete, f"{record.id}/")
        await ctx.services.store.delete([record.id])
        return Response(status_code=204)

    return routes


def _refuse_unknown_parameters(request: Request) -> None:
    """Refuse unknown filters: if ``status`` were ignored, the client would mistake all tasks for a filtered list."""
    for name in request.query_params:
        if name not in _LIST_PARAMETERS:
            allowed = ", ".join(_LIST_PARAMETERS)
            raise invalid_field(
                name[:MAX_FIELD_CHARS] or "query", f"There is no such query parameter. Use {allowed}."
            )


async def _page(ctx: Dependencies, pools: Sequence[str], query: pagination.Query) -> Json:
    records, next_ulid = await pagination.read(ctx.services.store, pools, query)
    now_ms = ctx.services.now_ms()
    views = {name: await ctx.view(name) for name in {record.pool for record in records}}
    page: Json = {
        "object": "list",
        "data": [serializers.task(record, views[record.pool], now_ms) for record in records],
        "has_more": next_ulid is not None,
    }
    return page if next_ulid is None else {**page, "next": pagination.encode(next_ulid)}
