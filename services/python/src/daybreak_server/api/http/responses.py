"""Answers that are sent while they are made."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, BinaryIO

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from daybreak_server.api.cancellation import ended
from daybreak_server.ports.blobs import Blobs

CHUNK_BYTES = 256 * 1024


async def until_gone(receive: Receive, sending: Coroutine[Any, Any, None]) -> None:
    """Run ``sending`` until it ends or the client goes. Raises what it raises.

    Starlette's own streaming answer learns of a client's end only when it next sends; this one listens.
    """
    sender = asyncio.create_task(sending)
    listener = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait({sender, listener}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await ended(sender, listener)
    if not sender.cancelled() and (error := sender.exception()) is not None:
        raise error


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] not in ("http.disconnect", "websocket.disconnect"):
        pass


class BlobResponse(Response):
    """A stored file or a part of it."""

    def __init__(
        self, blobs: Blobs, key: str, *, start: int, length: int, status: int, headers: dict[str, str]
    ) -> None:
        self._blobs = blobs
        self._key = key
        self._start = start
        self._length = length
        self.status_code = status
        self.background = None
        self.body = b""
        self.init_headers({**headers, "Content-Length": str(length)})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """:raises BlobError: before anything is sent, so that it becomes a problem."""
        reader = await asyncio.to_thread(self._blobs.open, self._key, start=self._start, length=self._length)
        try:
            await until_gone(receive, self._send_all(reader, send))
        finally:
            await asyncio.to_thread(reader.close)

    async def _send_all(self, reader: BinaryIO, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        left = self._length
        while left > 0:
            chunk = await asyncio.to_thread(reader.read, min(CHUNK_BYTES, left))
            if not chunk:
                raise EOFError(f"{self._key} has {left} bytes fewer than its record says")
            left -= len(chunk)
            await send({"type": "http.response.body", "body": chunk, "more_body": left > 0})
        if self._length == 0:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
