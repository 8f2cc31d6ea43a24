"""Every error that leaves the app: RFC 9457 problems with a stable code.

``ApiError`` is what routes raise; the errors of the ports are translated here, and unknown_websocket else.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from daybreak.wire import ErrorCode, FieldError, Problem
from daybreak.wire.errors import MEDIA_TYPE, TYPE_PREFIX
from daybreak_server.api import path_prefix
from daybreak_server.ports.blobs import BlobError, BlobNotFoundError
from daybreak_server.ports.store_errors import (
    ConflictError,
    IdempotencyMismatchError,
    QueueFullError,
    StoreError,
    StoreFullError,
    StoreRefusedError,
)

log = logging.getLogger("daybreak.api")

MAX_FIELD_ERRORS = 20
MAX_FIELD_CHARS = 200
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
RETRY_AFTER_S = {ErrorCode.QUEUE_FULL: 5.0, ErrorCode.STORE_UNAVAILABLE: 1.0, ErrorCode.SHUTTING_DOWN: 1.0}


class ApiError(Exception):
    """An answer that is a problem; its title belongs to its code, as does its status unless it is given."""

    def __init__(
        self,
        code: ErrorCode,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        limit: str | None = None,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.status = status or code.status
        self.detail = detail
        self.errors = list(errors)
        self.limit = limit
        self.retry_after_s = RETRY_AFTER_S.get(code) if retry_after_s is None else retry_after_s
        self.headers = dict(headers or {})

    def problem(self, request_id: str | None = None) -> Problem:
        """The wire form."""
        return Problem(
            type=TYPE_PREFIX + self.code.value,
            title=self.code.title,
            status=self.status,
            code=self.code.value,
            detail=self.detail,
            errors=self.errors,
            limit=self.limit,
            retry_after_s=self.retry_after_s,
            request_id=request_id,
        )


def not_found(what: str) -> ApiError:
    """There is no such thing, or it belongs to another tenant: the answer is the same."""
    return ApiError(ErrorCode.NOT_FOUND, what)


def invalid(errors: Sequence[FieldError]) -> ApiError:
    """Fields that are wrong; the first one is also the detail, which begins with its name."""
    first = errors[0]
    name = re.escape(first.field.rpartition(".")[2])
    own_words = re.match(rf"(The )?{name}(?!\w)", first.message)
    detail = first.message if own_words else f"{first.field}: {first.message}"
    return ApiError(ErrorCode.INVALID_INPUT, detail, errors=errors)


def invalid_field(field: str, message: str) -> ApiError:
    """One field that is wrong."""
    return invalid([FieldError(field=field, message=message)])


def from_validation(exc: ValidationError, *, within: str = "") -> ApiError:
    """What pydantic found, as paths: ``input.frames``. ``within`` is put before each of them."""
    found = exc.errors(include_url=False, include_context=False, include_input=False)
    return invalid([_field_error(e, within) for e in found[:MAX_FIELD_ERRORS]])


def _field_error(error: Mapping[str, Any], within: str) -> FieldError:
    parts = ([within] if within else []) + [str(part) for part in error["loc"]]
    message = str(error["msg"]).removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return FieldError(field=".".join(parts)[:MAX_FIELD_CHARS] or "body", message=message[:1000])


def from_store(exc: StoreError) -> ApiError:
    """What the store raised, as an answer."""
    if isinstance(exc, IdempotencyMismatchError):
        return ApiError(ErrorCode.IDEMPOTENCY_MISMATCH, "This Idempotency-Key was used with another body.")
    if isinstance(exc, ConflictError):
        return ApiError(ErrorCode.CONFLICT, str(exc) or "The task's state does not allow this.")
    if isinstance(exc, QueueFullError):
        return ApiError(
            ErrorCode.QUEUE_FULL, "The pool has as many waiting tasks as it may; try again later."
        )
    if isinstance(exc, StoreFullError):
        return ApiError(ErrorCode.QUEUE_FULL, "The store has no memory for new tasks; try again later.")
    if isinstance(exc, StoreRefusedError):
        detail = (
            "The task store refuses this server's user or password. Who runs it must correct them; try again."
        )
        return ApiError(ErrorCode.STORE_UNAVAILABLE, detail)
    return ApiError(ErrorCode.STORE_UNAVAILABLE, "The task store cannot be reached; try again.")


def from_blobs(exc: BlobError) -> ApiError:
    """What the store of files raised, as an answer."""
    if isinstance(exc, BlobNotFoundError):
        return ApiError(ErrorCode.NO_SUCH_ARTIFACT, "The file is not in the store any more.")
    return ApiError(ErrorCode.STORE_UNAVAILABLE, "The artifact store cannot be used now; try again.")


def problem_response(error: ApiError, request_id: str | None) -> Response:
    """The HTTP answer."""
    headers = dict(error.headers)
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    problem = error.problem(request_id)
    body = problem.model_dump_json(exclude_none=True, exclude=None if problem.errors else {"errors"})
    return Response(body, status_code=error.status, headers=headers, media_type=MEDIA_TYPE)


def request_id_of(request: Request) -> str | None:
    """The id that the edge gave the request."""
    found: str | None = request.scope.get("state", {}).get("request_id")
    return found


def _allowed(request: Request) -> str:
    """The methods of all routes that have the path: Starlette's own ``Allow`` has those of the first only."""
    routes = request.app.routes
    found = (
        method
        for method in METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    )
    return ", ".join(found)


def from_http(exc: HTTPException, path: str) -> ApiError:
    """What Starlette's routing raised: unknown paths and methods."""
    headers = dict(exc.headers or {})
    if exc.status_code == 404:
        return not_found(
            f"There is no {path[:MAX_FIELD_CHARS]} here; {path_prefix.current()}/docs lists what there is."
        )
    if exc.status_code == 405:
        return ApiError(ErrorCode.METHOD_NOT_ALLOWED, "This path does not know the method.")
    return ApiError(ErrorCode.BAD_HEADER, str(exc.detail), headers=headers)


def from_request_validation(exc: RequestValidationError) -> ApiError:
    """Wrong query parameters: ``query.limit`` is named ``limit``, and ``query.state.0`` is ``state``."""
    found = [{**error, "loc": error["loc"][1:2]} for error in exc.errors()[:MAX_FIELD_ERRORS]]
    return invalid([_field_error(error, "") for error in found])


def to_api_error(exc: Exception, path: str) -> ApiError | None:
    """The answer to any exception that has one; ``None`` for a bug."""
    match exc:
        case ApiError():
            return exc
        case StoreError():
            return from_store(exc)
        case BlobError():
            return from_blobs(exc)
        case RequestValidationError():
            return from_request_validation(exc)
        case HTTPException():
            return from_http(exc, path)
        case _:
            return None


def answer(request: Request, exc: Exception) -> Response:
    """The problem that an exception is; raises one that is a bug."""
    error = to_api_error(exc, request.url.path)
    if error is None:
        raise exc
    if error.code is ErrorCode.METHOD_NOT_ALLOWED:
        error.headers["Allow"] = _allowed(request)
    if error.status == 503:
        log.warning(
            "%s %s: %s (%r)", request.method, request.url.path, error.code.value, exc.__cause__ or exc
        )
    return problem_response(error, request_id_of(request))


def install(app: FastAPI) -> None:
    """Answer all known exceptions with problems; the edge answers what is left."""

    async def answered(request: Request, exc: Exception) -> Response:
        return answer(request, exc)

    handler: Callable[[Request, Exception], Any] = answered
    for kind in (ApiError, StoreError, BlobError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, handler)
