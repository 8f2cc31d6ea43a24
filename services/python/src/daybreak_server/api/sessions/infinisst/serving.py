"""The routes of InfiniSST's serving system that concern one session."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response
from starlette.websockets import WebSocket

from daybreak_server.api.auth.principal import Caller
from daybreak_server.api.http.responses import json_response
from daybreak_server.api.sessions import opening, specs, views
from daybreak_server.api.sessions.infinisst.fields import Init, SessionOnly, read_fields
from daybreak_server.api.sessions.infinisst.socket import InfiniSSTSocket
from daybreak_server.api.sessions.service import SessionService
from daybreak_server.api.sessions.sockets import Sockets
from daybreak_server.domain.sessions import SessionRecord, SessionState

_STATUS = {SessionState.WAITING: "queued", SessionState.ACTIVE: "active", SessionState.ENDED: "ended"}


def add(routes: APIRouter, service: SessionService, sockets: Sockets) -> None:
    """Add the routes."""
    max_bytes = service.ctx.services.settings.http.max_body_bytes

    @routes.post("/init", **specs.INIT)
    async def init(request: Request, caller: Caller) -> Response:
        """Open a session, as InfiniSST's `/init` does."""
        wanted = await read_fields(request, Init, max_bytes=max_bytes)
        entry, pair = service.pools.choose(
            wanted.pool, lambda languages: languages.parse(wanted.language_pair)
        )
        with opening.traced(service.ctx, request) as trace:
            record = await service.open(
                caller,
                trace=trace,
                pool=entry.name,
                source=pair.source,
                target=pair.target,
                latency_multiplier=wanted.latency_multiplier,
                client=wanted.client_id or "",
            )
        record, position = await service.place_in_queue(record)
        return json_response(
            {
                "session_id": record.session.id,
                "queued": position > 0,
                "queue_position": position,
                "ray_based": True,
                "evaluation_mode": wanted.evaluation_mode,
                "latency_multiplier": record.latency_multiplier,
            },
            headers=opening.headers(record),
        )

    @routes.get("/queue_status/{session_id}", **specs.QUEUE_STATUS)
    async def queue_status(session_id: str, caller: Caller) -> Response:
        """Whether a session waits for a group, and its place in the queue."""
        record, position = await service.place_in_queue(await service.get(session_id, caller))
        return json_response({**shown(record), "queued": position > 0, "queue_position": position})

    @routes.websocket("/wss/{session_id}")
    async def stream(socket: WebSocket, session_id: str) -> None:
        """Send samples to a session and receive its text."""
        await InfiniSSTSocket(service, sockets, socket, session_id).serve()

    _add_ends(routes, service, max_bytes)


def _add_ends(routes: APIRouter, service: SessionService, max_bytes: int) -> None:
    """Add the routes that end a session, or keep it from ending."""

    @routes.post("/ping", **specs.PING)
    async def ping(request: Request, caller: Caller) -> Response:
        """Keep a session open while its client sends no audio."""
        named = await read_fields(request, SessionOnly, max_bytes=max_bytes)
        record = await service.keep_alive(named.session_id, caller)
        return json_response({"success": True, **shown(record)})

    @routes.post("/delete_session", **specs.DELETE_SESSION)
    async def delete_session(request: Request, caller: Caller) -> Response:
        """End a session at once."""
        named = await read_fields(request, SessionOnly, max_bytes=max_bytes)
        record = await service.close(named.session_id, caller)
        return json_response({"success": True, **shown(record)})

    @routes.post("/reset_translation", **specs.RESET_TRANSLATION)
    async def reset_translation(request: Request, caller: Caller) -> Response:
        """End a session, and open another one of the same client and languages."""
        named = await read_fields(request, SessionOnly, max_bytes=max_bytes)
        old = (await service.close(named.session_id, caller)).session
        with opening.traced(service.ctx, request) as trace:
            record = await service.open(
                caller,
                trace=trace,
                pool=old.pool,
                source=old.source,
                target=old.target,
                latency_multiplier=old.latency_multiplier,
                client=old.client,
                options=old.options,
            )
        message = "The old session has ended. session_id is the id of the new one."
        return json_response(
            {"success": True, "status": "success", "message": message, "session_id": record.session.id},
            headers=opening.headers(record),
        )


def shown(record: SessionRecord) -> dict[str, Any]:
    """The fields of a session that are in several answers."""
    return {
        "session_id": record.session.id,
        "status": _STATUS[record.state],
        "session_type": "ray",
        "received_ms": views.milliseconds(record.received),
        "consumed_ms": views.milliseconds(record.consumed),
        "latency_multiplier": record.latency_multiplier,
    }
