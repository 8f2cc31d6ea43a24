"""The outermost middleware: gives each request an id, counts requests, and turns an unexpected exception into a 500."""

from __future__ import annotations

import logging
import re
import time
from random import getrandbits
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from daybreak.wire import ErrorCode
from daybreak_server.api.errors import ApiError, ErrorRenderer, code_of, record_code
from daybreak_server.api.http.exception_handlers import METHODS
from daybreak_server.api.http.origin_check import Headers, OriginCheck
from daybreak_server.domain.log_context import bound
from daybreak_server.observability.gateway_metrics import GatewayMetrics

log = logging.getLogger("daybreak.api")

MAX_HEADER_BYTES = 32 * 1024
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_NOT_ALLOWED = 4401


class RequestMiddleware:
    """Plain ASGI, because Starlette's middleware class is slower and every request passes through this middleware."""

    def __init__(
        self, app: ASGIApp, *, metrics: GatewayMetrics, origin_check: OriginCheck, render: ErrorRenderer
    ) -> None:
        self._app = app
        self._metrics = metrics
        self._origin_check = origin_check
        self._render = render

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request or WebSocket."""
        if scope["type"] == "http":
            await self._request(scope, receive, send)
            return
        if scope["type"] == "websocket" and (refusal := self._origin_check.check(scope)) is not None:
            await self._refuse_handshake(WebSocket(scope, receive, send), refusal)
            return
        await self._app(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        began = time.perf_counter()
        status = 0
        extra_headers: Headers = [(b"x-request-id", request_id.encode()), *self._origin_check.cors(scope)]

        async def send_counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], *extra_headers]
                self._count(scope, status, time.perf_counter() - began)
            await send(message)

        early = self._early_response(scope)
        if early is not None:
            if isinstance(early, ApiError):
                record_code(scope, early)
                early = self._render(early, request_id)
            await early(scope, receive, send_counted)
            return
        try:
            with bound(request_id=request_id):
                await self._app(scope, receive, send_counted)
        except Exception:
            with bound(request_id=request_id):
                log.exception("%s %s failed (request %s)", scope["method"], scope["path"], request_id)
            if status:
                # The response has begun: the server cuts it off, so no client mistakes it for complete.
                raise
            error = ApiError(
                ErrorCode.INTERNAL,
                "The server has a bug. Report it with the request id. The log has the traceback under this id.",
            )
            record_code(scope, error)
            await self._render(error, request_id)(scope, receive, send_counted)

    def _early_response(self, scope: Scope) -> Response | ApiError | None:
        """The response to a request that does not reach the app: its headers are too large, its Host or Origin is not
        allowed, or it is a CORS preflight. ``None`` for all other requests."""
        size = 0
        for name, value in scope["headers"]:
            size += len(name) + len(value)
        if size > MAX_HEADER_BYTES:
            return ApiError(
                ErrorCode.TOO_LARGE,
                f"The request's headers are larger than the limit of {MAX_HEADER_BYTES:,} bytes. Send fewer.",
                limit="header_bytes",
                status=431,
            )
        if (refusal := self._origin_check.check(scope)) is not None:
            return refusal
        if (preflight := self._origin_check.preflight(scope)) is not None:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in preflight}
            return Response(status_code=204, headers=headers)
        return None

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route: Any = scope.get("route")
        path = getattr(route, "path", "unmatched")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.observe_request(path, method, status, code_of(scope), seconds)

    async def _refuse_handshake(self, socket: WebSocket, error: ApiError) -> None:
        """Answer the handshake with the error if the server supports that, otherwise close the socket."""
        if "websocket.http.response" in socket.scope.get("extensions", {}):
            await socket.send_denial_response(self._render(error, None))
        else:
            await socket.close(_NOT_ALLOWED)


def _request_id(scope: Scope) -> str:
    """The client's ``X-Request-Id`` if it is valid, otherwise a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value.decode())
    return f"{getrandbits(64):016x}"
