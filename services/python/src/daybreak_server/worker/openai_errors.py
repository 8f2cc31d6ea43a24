"""Errors in OpenAI's shape, because the clients of a worker's models are clients of OpenAI's API."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.responses import Response

REFUSED_HEADER = "Daybreak-Refused"
"""The request was not run, not even in part, so it can be tried on another worker. The value says why."""
BROKE_HEADER = "Daybreak-Broke"
"""The engine broke before the first byte of an answer. It may have begun to work on the request."""


class RequestFailedError(Exception):
    """A request gets an error instead of an answer."""

    def __init__(
        self, status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """The response."""
        return error_response(self.status, self.code, self.detail, headers=self.headers)


def error_response(
    status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None
) -> Response:
    """A response with one error."""
    kind = "server_error" if status >= 500 else "invalid_request_error"
    if status == 401:
        kind = "authentication_error"
    error = {
        "message": detail,
        "type": kind,
        "param": "model" if code == "model_not_found" else None,
        "code": code,
    }
    body = json.dumps({"error": error}, ensure_ascii=False).encode()
    return Response(body, status, dict(headers or {}), media_type="application/json")
