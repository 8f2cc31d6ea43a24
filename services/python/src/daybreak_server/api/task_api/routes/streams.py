"""Routes that follow a task: SSE and WebSocket."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from daybreak.wire import ErrorCode
from daybreak_server.api.auth.principal import Caller, principal
from daybreak_server.api.dependencies import Dependencies
from daybreak_server.api.errors import ApiError, not_found
from daybreak_server.api.streaming import websocket
from daybreak_server.api.streaming.frames import EventKey, parse_id
from daybreak_server.api.streaming.sse import EventStream, no_more_events
from daybreak_server.api.streaming.subscription import Subscription
from daybreak_server.api.task_api import openapi_specs
from daybreak_server.api.task_api.problem_json import problem_response
from daybreak_server.domain.ids import TaskId

_ACCEPTED = ("text/event-stream", "text/*", "*/*")


def router(ctx: Dependencies) -> APIRouter:
    """The routes, bound to their dependencies."""
    routes = APIRouter(tags=["streams"])

    @routes.get("/v1/tasks/{id}/events", **openapi_specs.EVENTS)
    async def events(
        request: Request,
        id: str,
        caller: Caller,
        *,
        after: Annotated[str | None, Query(description="The id of the last event that you saw.")] = None,
        follow: Annotated[
            bool,
            Query(description="Whether live events follow. `false`: the stream ends after the stored ones."),
        ] = True,
        last_event_id: Annotated[
            str | None, Header(description="The same as `after`, and takes precedence over it.")
        ] = None,
    ) -> Response:
        """The events of a task, server-sent: stored events after the id `after`, then live events, up to the last.

        204 means that `after` is the last event of an ended task: nothing can follow, so do not reconnect.
        """
        check_accepts_events(request.headers.get("accept", "*/*"))
        record, _ = await ctx.record(caller, id)
        subscription = subscribe(ctx, record.id, record.pool, last_event_id or after, follow=follow)
        if await subscription.has_seen_end(record):
            return no_more_events()
        return EventStream(subscription, ctx.stream_limits, caller.tenant)

    @routes.websocket("/v1/tasks/{id}/ws")
    async def follow(socket: WebSocket, id: str) -> None:
        """Follow a task over a WebSocket: the same events as `/events`.

        The socket is accepted before any check, because a browser cannot see why a handshake was refused.
        """
        await socket.accept()
        try:
            caller = await principal(socket)
            record, _ = await ctx.record(caller, id)
            subscription = subscribe(ctx, record.id, record.pool, socket.query_params.get("after"))
            await websocket.serve(socket, subscription, ctx.stream_limits, caller.tenant)
        except Exception as exc:
            await websocket.refuse(socket, exc)

    @routes.websocket("/{path:path}")
    async def unknown_websocket(socket: WebSocket) -> None:
        """Refuse a handshake at any other path with a 404. Starlette itself would answer 403."""
        if "websocket.http.response" not in socket.scope.get("extensions", {}):
            await socket.close(websocket.UNKNOWN)
            return
        error = not_found("There is no WebSocket at this path. Follow a task at /v1/tasks/{id}/ws.")
        await socket.send_denial_response(problem_response(error, None))

    return routes


def subscribe(
    ctx: Dependencies,
    task: TaskId,
    pool: str,
    after: str | None,
    *,
    follow: bool = True,
    lossless: bool = False,
) -> Subscription:
    """A subscription to the task's events after the id ``after``. :raises ApiError: if the id is not valid."""
    if ctx.broadcaster.closing:
        raise ApiError(ErrorCode.SHUTTING_DOWN, "The server is shutting down. Reconnect in a moment.")
    key: EventKey | None = parse_id(after) if after else None
    return Subscription(ctx.sources, task, pool, after=key, live=follow, lossless=lossless)


def check_accepts_events(accept: str) -> None:
    """Check the header ``Accept`` of a request for a stream. :raises ApiError: ``not_acceptable``."""
    types = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    if any(types) and not any(accepted in _ACCEPTED for accepted in types):
        raise ApiError(
            ErrorCode.NOT_ACCEPTABLE,
            "This path serves text/event-stream only. Send Accept: text/event-stream, or no Accept header.",
        )
