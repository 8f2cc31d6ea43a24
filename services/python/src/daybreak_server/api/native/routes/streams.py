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
from daybreak_server.api.native import openapi_specs
from daybreak_server.api.problems import ApiError, not_found, problem_response
from daybreak_server.api.streaming import websocket
from daybreak_server.api.streaming.frames import EventKey, parse_id
from daybreak_server.api.streaming.sse import EventStream, no_more_events
from daybreak_server.api.streaming.subscription import Subscription
from daybreak_server.domain.ids import TaskId

_ACCEPTED = ("text/event-stream", "text/*", "*/*")


def router(ctx: Dependencies) -> APIRouter:
    """The routes, bound to their context."""
    routes = APIRouter(tags=["streams"])

    @routes.get("/v1/tasks/{id}/events", **openapi_specs.EVENTS)
    async def events(
        request: Request,
        id: str,
        caller: Caller,
        after: Annotated[str | None, Query(description="The last event id seen.")] = None,
        last_event_id: Annotated[str | None, Header(description="The same; it wins.")] = None,
    ) -> Response:
        """Follow a task as server-sent events: history behind `after`, then live, up to its last event.

        204 when `after` is the last event of a task that has ended: nothing can follow, so do not connect again.
        """
        _refuse_other_types(request.headers.get("accept", "*/*"))
        record, _ = await ctx.record(caller, id)
        following = _follow(ctx, record.id, record.pool, last_event_id or after)
        if await following.over(record):
            return no_more_events()
        return EventStream(following, ctx.gate, caller.tenant)

    @routes.websocket("/v1/tasks/{id}/ws")
    async def follow(socket: WebSocket, id: str) -> None:
        """Follow a task over a WebSocket: the events of `/events`.

        Accepted first, as a browser sees no reason of a refused handshake.
        """
        await socket.accept()
        try:
            caller = await principal(socket)
            record, _ = await ctx.record(caller, id)
            following = _follow(ctx, record.id, record.pool, socket.query_params.get("after"))
            await websocket.serve(socket, following, ctx.gate, caller.tenant)
        except Exception as exc:
            await websocket.refuse(socket, exc)

    @routes.websocket("/{path:path}")
    async def unknown_websocket(socket: WebSocket) -> None:
        """Any other path: the handshake is answered 404, where Starlette's own answer is 403."""
        if "websocket.http.response" not in socket.scope.get("extensions", {}):
            await socket.close(websocket.UNKNOWN)
            return
        error = not_found("There is no WebSocket here; tasks have theirs at /v1/tasks/{id}/ws.")
        await socket.send_denial_response(problem_response(error, None))

    return routes


def _follow(ctx: Dependencies, task: TaskId, pool: str, after: str | None) -> Subscription:
    if ctx.hub.closing:
        raise ApiError(ErrorCode.SHUTTING_DOWN, "The server is shutting down; follow again in a moment.")
    key: EventKey | None = parse_id(after) if after else None
    return Subscription(ctx.sources, task, pool, after=key)


def _refuse_other_types(accept: str) -> None:
    kinds = [part.partition(";")[0].strip().lower() for part in accept.split(",")]
    if any(kinds) and not any(kind in _ACCEPTED for kind in kinds):
        raise ApiError(ErrorCode.NOT_ACCEPTABLE, "This path serves text/event-stream only.")
