"""Reads the ``model`` in the body of a request, and leaves the body to be read again."""

from __future__ import annotations

import asyncio
import json

from starlette.requests import Request
from starlette.types import Message

from daybreak_server.api.routing.failures import deadline_passed, full
from daybreak_server.api.routing.request_body import BufferedBytes, BuffersFullError, ForwardedBody


async def model_of_body(
    request: Request, *, max_bytes: int, timeout_s: float, in_memory: BufferedBytes
) -> tuple[str | None, Request]:
    """The ``model``, or ``None`` if the body names none, and a request with the same body.

    A body that is no JSON object names none: the group refuses it.

    :raises ApiError: ``too_large``, ``queue_full`` or ``deadline_passed``.
    :raises ClientGoneError:
    """
    body = ForwardedBody(request, max_bytes=max_bytes, in_memory=in_memory)
    try:
        async with asyncio.timeout(timeout_s):
            await body.read_beginning(max_bytes)
    except BuffersFullError as exc:
        raise full("buffered_bytes") from exc
    except TimeoutError as exc:
        raise deadline_passed() from exc
    finally:
        body.drop()  # the proxy counts it again when it reads it
    return _model(body.buffered), Request(request.scope, _replayed(body.buffered, request))


def _model(body: bytes) -> str | None:
    if b'"model"' not in body:
        return None
    try:
        value = json.loads(body)
    except ValueError:
        return None
    model = value.get("model") if isinstance(value, dict) else None
    return model if isinstance(model, str) else None


def _replayed(body: bytes, request: Request):  # type: ignore[no-untyped-def]
    unread = True

    async def receive() -> Message:
        nonlocal unread
        if unread:
            unread = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await request.receive()

    return receive
