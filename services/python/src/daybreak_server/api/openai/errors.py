"""Renders errors in the format of OpenAI's API. OpenAI's clients choose their exceptions by the status and the body."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.responses import Response

from daybreak.wire import ErrorCode
from daybreak_server.api.errors import ApiError

_KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


def error_response(
    status: int,
    code: str,
    message: str,
    *,
    field: str | None = None,
    headers: Mapping[str, str] | None = None,
    **more: object,
) -> Response:
    """A response with one error.

    ``field``: the name of the request's wrong field. ``more``: further members of the object ``error`` in the body.
    """
    kind = _KINDS.get(status) or ("server_error" if status >= 500 else "invalid_request_error")
    if code == ErrorCode.MODEL_NOT_FOUND:
        field = "model"
    error = {"message": message, "type": kind, "param": field, "code": code, **more}
    body = json.dumps({"error": error}, ensure_ascii=False).encode()
    return Response(body, status, dict(headers or {}), media_type="application/json")


def openai_response(error: ApiError, request_id: str | None) -> Response:
    """The HTTP response for an error. This is an :data:`daybreak_server.api.errors.ErrorRenderer`."""
    headers = dict(error.headers)
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    more = {"wake": None if error.wake is None else dict(error.wake), "request_id": request_id}
    return error_response(
        error.status,
        error.code.value,
        error.detail,
        field=error.errors[0].field if error.errors else None,
        headers=headers,
        **{name: value for name, value in more.items() if value is not None},
    )
