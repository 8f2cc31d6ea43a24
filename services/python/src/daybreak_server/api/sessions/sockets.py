"""The parts that the WebSockets of all interfaces share: admission, errors, and the end of a connection."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketDisconnected

from daybreak.wire import ErrorCode
from daybreak_server.api.asyncio_tasks import cancel_and_wait
from daybreak_server.api.auth.principal import Principal, principal
from daybreak_server.api.dependencies import Dependencies
from daybreak_server.api.errors import ApiError, to_api_error
from daybreak_server.api.streaming import websocket
from daybreak_server.ports.session_tracing import OpeningTrace, UnrecordedOpening

log = logging.getLogger("daybreak.api.sessions")


class Sockets:
    """The open WebSockets of sessions. They end when the server shuts down, and their clients connect elsewhere."""

    def __init__(self, ctx: Dependencies) -> None:
        self._ctx = ctx
        self._closing = asyncio.Event()
        ctx.broadcaster.on_close(self._closing.set)

    async def serve(
        self,
        socket: WebSocket,
        converse: Callable[[Principal], Awaitable[None]],
        *,
        send_error: Callable[[ApiError], Awaitable[None]],
        trace: OpeningTrace | None = None,
    ) -> None:
        """Run a conversation, and close the socket when the conversation ends or fails.

        ``send_error`` sends an error to the client in the format of its interface. ``trace`` is the trace of
        the connection, if the connection opens sessions. The response to the handshake names the trace in the header
        ``traceparent``.
        """
        trace = trace or UnrecordedOpening(None)
        error: ApiError | None = None
        try:
            context = trace.context
            await socket.accept(headers=[(b"traceparent", context.traceparent.encode())] if context else [])
            error = await self._run(socket, converse, send_error=send_error)
        finally:
            trace.ended(error=error.code.value if error is not None else "")

    async def _run(
        self,
        socket: WebSocket,
        converse: Callable[[Principal], Awaitable[None]],
        *,
        send_error: Callable[[ApiError], Awaitable[None]],
    ) -> ApiError | None:
        """Run a conversation on an accepted socket. Returns the error that ended the conversation, if any."""
        try:
            caller = await principal(socket)
            if self._closing.is_set():
                raise ApiError(
                    ErrorCode.SHUTTING_DOWN, "The server is shutting down. Connect again in a moment."
                )
            with self._ctx.stream_limits.enter(caller.tenant, "session"):
                await converse(caller)
            await websocket.close(socket, websocket.DONE)
        except (WebSocketDisconnect, WebSocketDisconnected, OSError):
            return None
        except Exception as exc:
            error = to_api_error(exc, socket.url.path)
            if error is None:
                log.exception("the WebSocket %s failed", socket.url.path)
                error = ApiError(ErrorCode.INTERNAL, "The server has a bug. Its log has the traceback.")
            await _tell(send_error, error)
            if error.code is ErrorCode.SHUTTING_DOWN:
                await websocket.close(socket, websocket.RESTARTING, error.code.value)
            else:
                await websocket.refuse(socket, error)
            return error
        return None

    async def run_parts(self, *parts: Coroutine[Any, Any, None]) -> None:
        """Run the parts of a conversation concurrently, until one of them ends. If that part raised an exception,
        this method raises it too.

        :raises ApiError: ``shutting_down``, when the server shuts down.
        """
        tasks = [asyncio.create_task(part) for part in parts]
        closing = asyncio.create_task(self._closing.wait())
        try:
            await asyncio.wait([*tasks, closing], return_when=asyncio.FIRST_COMPLETED)
            for task in tasks:
                if task.done():
                    task.result()
                    return
            raise ApiError(ErrorCode.SHUTTING_DOWN, "The server is shutting down. Connect again in a moment.")
        finally:
            await cancel_and_wait(*tasks, closing)


async def _tell(send_error: Callable[[ApiError], Awaitable[None]], error: ApiError) -> None:
    try:
        await send_error(error)
    except (WebSocketDisconnect, OSError, RuntimeError):
        log.debug("the client has gone, so the error could not be sent")


async def receive(socket: WebSocket) -> bytes | str:
    """The next frame. :raises WebSocketDisconnect: when the client has closed the connection."""
    message = await socket.receive()
    if message["type"] == "websocket.disconnect":
        raise WebSocketDisconnect(message.get("code", 1005))
    data: bytes | None = message.get("bytes")
    if data is not None:
        return data
    text: str = message.get("text") or ""
    return text
