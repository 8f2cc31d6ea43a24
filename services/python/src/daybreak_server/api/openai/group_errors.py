"""Converts the errors of groups to OpenAI's format. Groups send errors as ``application/problem+json``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from daybreak.wire.errors import MEDIA_TYPE
from daybreak_server.api.openai.errors import error_response

_REPLACED = (b"content-type", b"content-length")


class WithOpenAIErrors(Response):
    """The answer of a group, passed on as it arrives. Only an error is read as a whole and converted."""

    def __init__(self, answer: Response) -> None:
        self.status_code = answer.status_code
        self.background = None
        self.body = b""
        self.raw_headers = answer.raw_headers
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer. If an error is cut off, nothing is sent, and the server closes the connection."""
        start: Message | None = None
        parts: list[bytes] = []

        async def send_shaped(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start" and _is_problem(message):
                start = message
            elif start is None:
                await send(message)
            else:
                parts.append(message.get("body", b""))
                if not message.get("more_body", False):
                    await _send_error(start, b"".join(parts), send)

        await self._answer(scope, receive, send_shaped)


def _is_problem(start: Message) -> bool:
    status: int = start["status"]
    content_type: bytes = dict(start["headers"]).get(b"content-type", b"")
    return status >= 400 and content_type.startswith(MEDIA_TYPE.encode())


async def _send_error(start: Message, body: bytes, send: Send) -> None:
    shaped = _shaped(start["status"], body)
    kept = [pair for pair in start["headers"] if pair[0] not in _REPLACED]
    made = [pair for pair in shaped.raw_headers if pair[0] in _REPLACED]
    await send({**start, "headers": [*kept, *made]})
    await send({"type": "http.response.body", "body": shaped.body, "more_body": False})


def _shaped(status: int, body: bytes) -> Response:
    try:
        found: Mapping[str, Any] = json.loads(body)
        wrong = found.get("errors") or [{}]
        return error_response(status, found["code"], found["detail"], field=wrong[0].get("field"))
    except (ValueError, KeyError, AttributeError, TypeError):  # a workload may send errors of another form
        return error_response(status, "error", body.decode("utf-8", "replace"))
