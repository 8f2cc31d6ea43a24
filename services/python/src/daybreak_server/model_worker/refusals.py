"""How a worker refuses a request: with an error in OpenAI's format, and headers that say what the gateway
should do."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response

from daybreak_server.api.openai.errors import error_response

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
