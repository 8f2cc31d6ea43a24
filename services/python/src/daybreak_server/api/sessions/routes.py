"""Daybreak's own routes for sessions. :func:`router` also adds the page ``/speak``, the routes of realtime sessions and
of recordings, and the routes of InfiniSST."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from daybreak.wire import OpenSessionRequest, SessionList
from daybreak_server.api.auth.principal import Caller
from daybreak_server.api.dependencies import Dependencies
from daybreak_server.api.errors import from_validation
from daybreak_server.api.http.request_body import idempotency_key, read_json
from daybreak_server.api.http.responses import json_response
from daybreak_server.api.sessions import opening, page, specs, views
from daybreak_server.api.sessions.infinisst import operations, scheduler, serving
from daybreak_server.api.sessions.realtime import routes as realtime_routes
from daybreak_server.api.sessions.recordings import routes as recording_routes
from daybreak_server.api.sessions.service import SessionService
from daybreak_server.api.sessions.sockets import Sockets
from daybreak_server.api.sessions.stream import SessionStream


def router(ctx: Dependencies) -> APIRouter:
    """The routes, bound to their dependencies."""
    routes = APIRouter(tags=["sessions"])
    service, sockets = SessionService(ctx), Sockets(ctx)

    @routes.post("/v1/sessions", **specs.OPEN)
    async def open_session(request: Request, caller: Caller) -> Response:
        """Open a session, which translates speech while it arrives."""
        wanted = await _read(request, max_bytes=ctx.services.settings.http.max_body_bytes)
        with opening.traced(ctx, request, status=201) as trace:
            record = await service.open(
                caller,
                trace=trace,
                pool=wanted.pool,
                source=wanted.source,
                target=wanted.target,
                latency_multiplier=wanted.latency_multiplier,
                client=wanted.client,
                options=wanted.options,
                key=idempotency_key(request),
            )
        shown = views.session(record, trusted=caller.admin)
        location = {"Location": shown.links.self if shown.links else ""}
        return json_response(shown, status=201, headers=location | opening.headers(record))

    @routes.get("/v1/sessions", **specs.LIST)
    async def list_sessions(
        caller: Caller,
        *,
        pool: Annotated[str | None, Query(description="Only sessions of this pool.")] = None,
    ) -> Response:
        """Your open sessions, oldest first."""
        found = await service.open_sessions(caller, pool)
        return json_response(SessionList(data=[views.session(r, trusted=caller.admin) for r in found]))

    @routes.get("/v1/sessions/{id}", **specs.GET)
    async def get_session(id: str, caller: Caller) -> Response:
        """A session: its state, its languages, how much audio has arrived, and how much has been processed."""
        return json_response(views.session(await service.get(id, caller), trusted=caller.admin))

    @routes.delete("/v1/sessions/{id}", **specs.CLOSE)
    async def close_session(id: str, caller: Caller) -> Response:
        """End a session at once."""
        return json_response(views.session(await service.close(id, caller), trusted=caller.admin))

    @routes.websocket("/v1/sessions/{id}/stream")
    async def stream(socket: WebSocket, id: str) -> None:
        """Send audio to a session and receive its events."""
        await SessionStream(service, sockets, socket, id).serve()

    page.add(routes)
    realtime_routes.add(routes, service, sockets)
    recording_routes.add(routes, ctx)
    serving.add(routes, service, sockets)
    scheduler.add(routes, service)
    operations.add(routes, service)
    return routes


async def _read(request: Request, *, max_bytes: int) -> OpenSessionRequest:
    """The body of a request to open a session. :raises ApiError: if the body is invalid."""
    body = await read_json(request, max_bytes=max_bytes)
    try:
        return OpenSessionRequest.model_validate(body)
    except ValidationError as exc:
        raise from_validation(exc) from exc
