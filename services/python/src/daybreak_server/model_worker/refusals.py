"""How a worker refuses a request: with an error in OpenAI's format, and headers that say what the gateway
should do."""

from __future__ import annotations

from collections.abc import Mapping

from starlette.responses import Response

from daybreak_server.api.openai.errors import error_response


class RequestFailedError(Exception):
    """A request that the worker answers with an error."""

    def __init__(
        self, status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """The response with this error."""
        return error_response(self.status, self.code, self.detail, headers=self.headers)
