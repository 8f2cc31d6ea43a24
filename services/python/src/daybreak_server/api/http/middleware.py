"""The outermost layer: a request id for every request, its time and outcome counted, no exception let out."""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from daybreak.wire import ErrorCode
from daybreak_server.api.http.origin_check import Guard, Headers
from daybreak_server.api.problems import METHODS, ApiError, problem_response
from daybreak_server.observability.gateway_metrics import GatewayMetrics

log = logging.getLogger("daybreak.api")

MAX_HEADER_BYTES = 32 * 1024
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_NOT_ALLOWED = 4401


class RequestMiddleware:
    """Pure ASGI, as it wraps every request."""

    def __init__(self, app: ASGIApp, metrics: GatewayMetrics, guard: Guard) -> None:
        self._app = app
        self._metrics = metrics
        self._guard = guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request or WebSocket."""
        if scope["type"] == "http":
            await self._request(scope, receive, send)
            return
        if scope["type"] == "websocket" and (refused := self._guard.check(scope)) is not None:
            await _deny(WebSocket(scope, receive, send), refused)
            return
        await self._app(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        began = time.perf_counter()
        status = 0
        more: Headers = [(b"x-request-id", request_id.encode()), *self._guard.cors(scope)]

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *more]
                self._count(scope, status, time.perf_counter() - began)
            await send(message)

        answer = self._answer_at_once(scope, request_id)
        if answer is not None:
            await answer(scope, receive, counted)
            return
        try:
            await self._app(scope, receive, counted)
        except Exception:
            log.exception("%s %s failed (request %s)", scope["method"], scope["path"], request_id)
            if status:
                raise  # the answer has begun: the server cuts the connection, and nobody takes it for whole
            error = ApiError(
                ErrorCode.INTERNAL, "This is a bug of ours; its trace is in the log under the request id."
            )
            await problem_response(error, request_id)(scope, receive, counted)

    def _answer_at_once(self, scope: Scope, request_id: str) -> Response | None:
        """The answer to what does not reach the app: too many headers, a wrong name or page, a preflight."""
        if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
            error = ApiError(
                ErrorCode.TOO_LARGE,
                f"Headers may have {MAX_HEADER_BYTES:,} bytes.",
                limit="header_bytes",
                status=431,
            )
            return problem_response(error, request_id)
        if (refused := self._guard.check(scope)) is not None:
            return problem_response(refused, request_id)
        if (preflight := self._guard.preflight(scope)) is not None:
            named = {name.decode("latin-1"): value.decode("latin-1") for name, value in preflight}
            return Response(status_code=204, headers=named)
        return None

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route: Any = scope.get("route")
        path = getattr(route, "path", "unmatched")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.answered(path, method, status, seconds)


async def _deny(socket: WebSocket, error: ApiError) -> None:
    """Answer the handshake with the problem where the server can, else close it."""
    if "websocket.http.response" in socket.scope.get("extensions", {}):
        await socket.send_denial_response(problem_response(error, None))
    else:
        await socket.close(_NOT_ALLOWED)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value.decode())
    return secrets.token_hex(8)
