"""Answers the handshake of a WebSocket with an HTTP response, without an error in the log.

The server refuses a handshake with a response such as 404 at an unknown path, or 403 if the origin of the page is not
allowed. uvicorn sends such a response, but then treats the handshake as unanswered, and logs an error. Any client could
fill the log with these errors.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol


class RefusingProtocol(WebSocketsSansIOProtocol):
    """uvicorn's WebSocket protocol, changed so that a complete HTTP response also completes the handshake."""

    async def send(self, message: Any) -> None:
        """Send a message of the app."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True
