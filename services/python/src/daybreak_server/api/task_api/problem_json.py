"""The error renderer of ``/v1``: RFC 9457 ``application/problem+json`` with a stable code."""

from __future__ import annotations

from starlette.responses import Response

from daybreak.wire import Problem, Wake
from daybreak.wire.errors import MEDIA_TYPE, TYPE_PREFIX
from daybreak_server.api.errors import ApiError


def problem(error: ApiError, request_id: str | None = None) -> Problem:
    """The error as clients receive it."""
    return Problem(
        type=TYPE_PREFIX + error.code.value,
        title=error.code.title,
        status=error.status,
        code=error.code.value,
        detail=error.detail,
        errors=error.errors,
        limit=error.limit,
        retry_after_s=error.retry_after_s,
        request_id=request_id,
        wake=None if error.wake is None else Wake.model_validate(error.wake),
    )


def problem_response(error: ApiError, request_id: str | None) -> Response:
    """Render an error as an HTTP response. Implements :data:`daybreak_server.api.errors.ErrorRenderer`."""
    headers = dict(error.headers)
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    shown = problem(error, request_id)
    body = shown.model_dump_json(exclude_none=True, exclude=None if shown.errors else {"errors"})
    return Response(body, status_code=error.status, headers=headers, media_type=MEDIA_TYPE)
