"""The error renderer of OpenAI's API. Its clients raise their own exceptions from status and body."""

from __future__ import annotations

import json

from starlette.responses import Response

from daybreak.wire import ErrorCode
from daybreak_server.api.errors import ApiError

_PARAMS = {ErrorCode.MODEL_NOT_FOUND: "model"}


def kind_of(status: int) -> str:
    """The ``type`` of an error, by its status."""
    if status == 401:
        return "authentication_error"
    if status == 429:
        return "rate_limit_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def openai_response(error: ApiError, request_id: str | None) -> Response:
    """The HTTP response; an :data:`daybreak_server.api.errors.ErrorRenderer`."""
    headers = dict(error.headers)
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    field = error.errors[0].field if error.errors else None
    shown = {
        "message": error.detail,
        "type": kind_of(error.status),
        "param": _PARAMS.get(error.code, field),
        "code": error.code.value,
    }
    if error.wake is not None:
        shown["wake"] = dict(error.wake)  # type: ignore[assignment]
    if request_id is not None:
        shown["request_id"] = request_id
    body = json.dumps({"error": shown}, ensure_ascii=False).encode()
    return Response(body, status_code=error.status, headers=headers, media_type="application/json")
