"""Turns an exception of a route into an error response, in the format of the given renderer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from daybreak.wire import ErrorCode
from daybreak_server.api.errors import (
    ApiError,
    ErrorRenderer,
    from_query_errors,
    record_code,
    request_id_of,
    to_api_error,
)
from daybreak_server.ports.blobs import BlobError
from daybreak_server.ports.store_errors import StoreError

log = logging.getLogger("daybreak.api")

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")


def error_response(request: Request, exc: Exception, render: ErrorRenderer) -> Response:
    """The response to an exception. An exception that is a bug is raised again."""
    if isinstance(exc, RequestValidationError):  # FastAPI validates only query parameters
        error: ApiError | None = from_query_errors(exc.errors())
    else:
        error = to_api_error(exc, request.url.path)
    if error is None:
        raise exc
    if error.code is ErrorCode.METHOD_NOT_ALLOWED:
        error.headers["Allow"] = _allowed_methods(request)
    if error.status == 503:
        cause = exc.__cause__ or exc
        log.warning("%s %s: %s (%r)", request.method, request.url.path, error.code.value, cause)
    record_code(request.scope, error)
    return render(error, request_id_of(request.scope))


def install(app: FastAPI, render: ErrorRenderer) -> None:
    """Answer every known exception. The middleware answers the rest, which are bugs."""

    async def handle(request: Request, exc: Exception) -> Response:
        return error_response(request, exc, render)

    handler: Callable[[Request, Exception], Any] = handle
    for kind in (ApiError, StoreError, BlobError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, handler)


def _allowed_methods(request: Request) -> str:
    """The methods of all routes of the path. Starlette's own ``Allow`` lists those of the first route only."""
    routes = request.app.routes
    found = (
        method
        for method in METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    )
    return ", ".join(found)
