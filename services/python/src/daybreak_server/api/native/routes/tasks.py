"""Routes about tasks that exist: show, list, cancel, delete."""

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
from daybreak_server.api.dependencies import Dependencies, answer
from daybreak_server.api.native import openapi_specs, pagination
from daybreak_server.api.problems import MAX_FIELD_CHARS, invalid_field, not_found
from daybreak_server.api.serializers import Json
from daybreak_server.domain.tasks import State
from daybreak_server.ports.store_errors import ConflictError

_STATES = {
    shown: frozenset(state for state in State if state.public.value == shown.value) for shown in TaskState
}

_LIST_PARAMETERS = ("pool", "state", "limit", "after", "order")


def router(ctx: Dependencies) -> APIRouter:
    """The routes, bound to their context."""
    routes = APIRouter(tags=["tasks"])

    @routes.get("/v1/tasks/{id}", **openapi_specs.SHOW)
    async def show(id: str, caller: Caller) -> Response:
        """A task: its state, its progress, its place in the queue, its files."""
        record, _ = await ctx.record(caller, id)
        return answer(await ctx.show(record))

    @routes.get("/v1/tasks", **openapi_specs.LIST)
    async def list_tasks(
        request: Request,
        caller: Caller,
        pool: Annotated[str | None, Query(description="Only of this pool.")] = None,
        state: Annotated[list[TaskState] | None, Query(description="Only in these states.")] = None,
        limit: Annotated[int, Query(ge=1, le=MAX_LIST)] = 20,
        after: Annotated[str | None, Query(description="The `next` of the page before.")] = None,
        order: Annotated[
            Literal["desc", "asc"], Query(description="Newest first, or oldest first.")
        ] = "desc",
    ) -> Response:
        """Your tasks, page by page. A filtered page may be short and still have a `next`."""
        _refuse_unknown(request)
        pools = [entry.name for entry in ctx.catalog] if pool is None else [ctx.catalog.get(pool).name]
        query = pagination.Query(
            tenant=caller.tenant,
            states=frozenset().union(*(_STATES[s] for s in state)) if state else None,
            after=None if after is None else pagination.decode(after),
            limit=limit,
            newest_first=order == "desc",
        )
        return answer(await _page(ctx, pools, query))

    @routes.post("/v1/tasks/{id}/cancel", **openapi_specs.CANCEL)
    async def cancel(id: str, caller: Caller) -> Response:
        """Cancel: at once while it waits, at its next step while it runs. An ended task stays as it is."""
        record, _ = await ctx.record(caller, id)
        if record.state.terminal:
            return answer(await ctx.show(record))
        changed = await ctx.services.store.cancel(record.id)
        if changed is None:
            raise not_found("There is no such task.")
        ended_by_itself = changed.state.terminal and changed.state is not State.CANCELLED
        return answer(await ctx.show(changed), status=200 if ended_by_itself else 202)

    @routes.delete("/v1/tasks/{id}", **openapi_specs.DELETE)
    async def delete(id: str, caller: Caller) -> Response:
        """Remove an ended task with its events and files, before retention does."""
        record, _ = await ctx.record(caller, id)
        if not record.state.terminal:
            raise ConflictError("A task can be deleted when it has ended; cancel it first.")
        await asyncio.to_thread(ctx.services.blobs.delete, f"{record.id}/")
        await ctx.services.store.forget([record.id])
        return Response(status_code=204)

    return routes


def _refuse_unknown(request: Request) -> None:
    """A filter that is not known, such as ``status``, would be a list of all tasks taken for a part of them."""
    for name in request.query_params:
        if name not in _LIST_PARAMETERS:
            allowed = ", ".join(_LIST_PARAMETERS)
            raise invalid_field(
                name[:MAX_FIELD_CHARS] or "query", f"There is no such parameter; use {allowed}."
            )


async def _page(ctx: Dependencies, pools: Sequence[str], query: pagination.Query) -> Json:
    records, following = await pagination.read(ctx.services.store, pools, query)
    now_ms = ctx.services.now_ms()
    numbers = {name: await ctx.view(name) for name in {record.pool for record in records}}
    page: Json = {
        "object": "list",
        "data": [serializers.task(record, numbers[record.pool], now_ms) for record in records],
        "has_more": following is not None,
    }
    return page if following is None else {**page, "next": pagination.encode(following)}
