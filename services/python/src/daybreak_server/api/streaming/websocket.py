"""Sends a subscription over a WebSocket: one event object in each text frame."""

from __future__ import annotations

import logging
from contextlib import aclosing, suppress

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from daybreak.wire import ErrorCode
from daybreak_server.api import path_prefix
from daybreak_server.api.errors import ApiError, to_api_error
from daybreak_server.api.http.responses import until_disconnect
from daybreak_server.api.streaming.stream_limits import StreamLimits
from daybreak_server.api.streaming.subscription import Subscription
from daybreak_server.ports.store_errors import StoreError

log = logging.getLogger("daybreak.api.streams")

DONE = 1000
BAD_REQUEST = 4400
NOT_ALLOWED = 4401
UNKNOWN = 4404
TOO_MANY = 4429
RESTARTING = 1012
TRY_AGAIN = 1013
INTERNAL_ERROR = 1011

_CODES = {
    **dict.fromkeys((400, 409, 413, 415, 422), BAD_REQUEST),
    **dict.fromkeys((401, 403), NOT_ALLOWED),
    404: UNKNOWN,
    429: TOO_MANY,
    503: TRY_AGAIN,
}


async def refuse(socket: WebSocket, exc: Exception) -> None:
    """Close an accepted socket because of an error.

    The close code depends on the error's HTTP status. The close reason is the error's :class:`ErrorCode`.
    """
    error = to_api_error(exc, socket.url.path)
    if error is None:
        log.exception("the WebSocket %s failed", socket.url.path, exc_info=exc)
        error = ApiError(ErrorCode.INTERNAL, "")
    await close(socket, _CODES.get(error.code.status, INTERNAL_ERROR), error.code.value)


async def serve(
    socket: WebSocket, subscription: Subscription, stream_limits: StreamLimits, tenant: str
) -> None:
    """Send frames over an accepted socket until the task's last event. Messages from the client are ignored."""
    with stream_limits.enter(tenant, "ws"):
        async with subscription:
            await until_disconnect(socket.receive, _send_all(socket, subscription))


async def _send_all(socket: WebSocket, subscription: Subscription) -> None:
    prefix = path_prefix.current()
    try:
        async with aclosing(subscription.batches()) as batches:
            # An empty batch is a heartbeat. It sends nothing here, because the server pings each WebSocket anyway.
            async for batch in batches:
                for frame in batch:
                    await socket.send_text(frame.with_prefix(prefix).text)
    except StoreError as exc:
        log.info("a stream ended because its history cannot be read: %s", exc)
        await close(socket, TRY_AGAIN, ErrorCode.STORE_UNAVAILABLE.value)
    except (WebSocketDisconnect, OSError):
        return
    else:
        await close(socket, DONE if subscription.ended else RESTARTING)


async def close(socket: WebSocket, code: int, reason: str | None = None) -> None:
    """Close the socket, unless it is closed already."""
    if socket.application_state is WebSocketState.CONNECTED:
        with suppress(RuntimeError, OSError, WebSocketDisconnect):
            await socket.close(code, reason)
