"""The outermost layer: a request id for every request, its time and outcome counted, no exception let out."""

from __future__ import annotations

import logging
import re
import secrets
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from daybreak.wire import ErrorCode
from daybreak_server.api.metrics import Metrics
from daybreak_server.api.problems import METHODS, ApiError, problem_response

log = logging.getLogger("daybreak.api")

MAX_HEADER_BYTES = 32 * 1024
_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")


class Edge:
    """Pure ASGI, as it wraps every request."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        began = time.perf_counter()
        status = 0

        async def counted(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
                self._count(scope, status, time.perf_counter() - began)
            await send(message)

        if sum(len(name) + len(value) for name, value in scope["headers"]) > MAX_HEADER_BYTES:
            error = ApiError(
                ErrorCode.TOO_LARGE,
                f"Headers may have {MAX_HEADER_BYTES:,} bytes.",
                limit="header_bytes",
                status=431,
            )
            await problem_response(error, request_id)(scope, receive, counted)
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

    def _count(self, scope: Scope, status: int, seconds: float) -> None:
        route: Any = scope.get("route")
        path = getattr(route, "path", "unmatched")
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.answered(path, method, status, seconds)


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value.decode())
    return secrets.token_hex(8)
