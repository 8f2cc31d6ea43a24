"""The HTTP interface of a worker: ``/health``, ``/ready``, ``/v1/models``, and ``/v1/…`` for its models."""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from daybreak.wire.workers import MODEL_HEADER
from daybreak_server.api.http.request_body import header
from daybreak_server.api.openai.errors import error_response
from daybreak_server.model_worker.proxy import WorkerProxy
from daybreak_server.model_worker.supervisor import ReplicaSupervisor

_MODEL = MODEL_HEADER.lower().encode()


class WorkerApp:
    """The ASGI app. ``health`` returns what ``/health`` says about the worker, besides the list of its models."""

    def __init__(
        self,
        *,
        proxy: WorkerProxy,
        supervisor: ReplicaSupervisor,
        token: str | None,
        health: Callable[[], dict[str, Any]],
    ) -> None:
        self._proxy = proxy
        self._supervisor = supervisor
        self._health = health
        self._expected = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        response = await self._answer(request)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        path: str = request.scope["path"]
        if path == "/health" and request.method in ("GET", "HEAD"):
            hidden = {"last_lines"}  # an engine may log the text of requests
            models = [
                model.model_dump(mode="json", exclude_none=True, exclude=hidden)
                for model in self._supervisor.report()
            ]
            return JSONResponse({"status": "ok", **self._health(), "models": models})
        if path == "/ready" and request.method in ("GET", "HEAD"):
            health = self._health()
            ready = health["registered"] and not health["draining"]
            return JSONResponse(health, 200 if ready else 503)
        if not path.startswith("/v1/"):
            return error_response(
                404, "not_found", "There is no such path. Send requests for models to /v1/…."
            )
        if not self._is_authorized(request):
            return error_response(
                401,
                "bad_key",
                "The token is missing or wrong. Send the worker's token as `Authorization: Bearer …`.",
            )
        if path == "/v1/models" and request.method == "GET" and header(request, _MODEL) is None:
            data = [
                {"id": alias, "object": "model", "created": 0, "owned_by": "daybreak"}
                for alias in self._supervisor.ready()
            ]
            return JSONResponse({"object": "list", "data": data})
        return await self._proxy.answer(request)

    def _is_authorized(self, request: Request) -> bool:
        if self._expected is None:
            return True
        sent = header(request, b"authorization") or ""
        return hmac.compare_digest(sent.encode(), self._expected)
