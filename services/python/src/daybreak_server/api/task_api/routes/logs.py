"""The route that serves the lines that a task's workload has written with ``ctx.log``."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import Response

from daybreak.wire import EventType
from daybreak.wire.events import MAX_LOG_PAGE, TERMINAL_EVENTS
from daybreak_server.api import serializers
from daybreak_server.api.auth.principal import Caller
from daybreak_server.api.dependencies import Dependencies
from daybreak_server.api.http.responses import json_response
from daybreak_server.api.serializers import Json
from daybreak_server.api.streaming.frames import parse_id
from daybreak_server.api.streaming.sse import EventStream, no_more_events
from daybreak_server.api.task_api import openapi_specs
from daybreak_server.api.task_api.routes.streams import check_accepts_events, subscribe
from daybreak_server.domain.ids import TaskId
from daybreak_server.domain.tasks import EventRecord

_READ = 1000
"""The most events that one read of the store returns. A task keeps about this many events."""
_SENT = frozenset({EventType.LOG.value, *(kind.value for kind in TERMINAL_EVENTS)})


def router(ctx: Dependencies) -> APIRouter:
    """The routes, bound to their dependencies."""
    routes = APIRouter(tags=["streams"])

    @routes.get("/v1/tasks/{id}/logs", **openapi_specs.LOGS)
    async def logs(
        request: Request,
        id: str,
        caller: Caller,
        *,
        follow: Annotated[
            bool,
            Query(description="Whether the response is a stream: the stored lines, then live ones."),
        ] = False,
        after: Annotated[str | None, Query(description="Only lines after the event with this id.")] = None,
        limit: Annotated[
            int, Query(ge=1, le=MAX_LOG_PAGE, description="The most lines of a page. Not used with `follow`.")
        ] = 100,
        last_event_id: Annotated[
            str | None,
            Header(description="With `follow`: the same as `after`, and takes precedence over it."),
        ] = None,
    ) -> Response:
        """The lines that a task's workload has logged: a page, or with `follow` a stream up to the task's end."""
        if follow:
            after = last_event_id or after
            check_accepts_events(request.headers.get("accept", "*/*"))
        record, _ = await ctx.record(caller, id)
        if not follow:
            return json_response(await _page(ctx, record.id, after=after, limit=limit))
        # Other streams send a slow client the state of the task instead of the events that it missed. This stream
        # sends every line.
        subscription = subscribe(ctx, record.id, record.pool, after, lossless=True)
        if await subscription.has_seen_end(record):
            return no_more_events()
        return EventStream(subscription, ctx.stream_limits, caller.tenant, types=_SENT)

    return routes


async def _page(ctx: Dependencies, task: TaskId, *, after: str | None, limit: int) -> Json:
    if after:
        parse_id(after)
    lines, cursor, is_end = list[EventRecord](), after or None, False
    while len(lines) <= limit and not is_end:
        page = await ctx.services.events.read(task, after=cursor, limit=_READ)
        lines += [event for event in page.events if event.type == EventType.LOG.value]
        is_end = len(page.events) < _READ
        cursor = page.events[-1].id if page.events else cursor
    found = lines[:limit]
    shown: Json = {
        "object": "list",
        "data": [serializers.event(event) for event in found],
        "has_more": len(lines) > limit,
    }
    return {**shown, "next": found[-1].id} if len(lines) > limit else shown
