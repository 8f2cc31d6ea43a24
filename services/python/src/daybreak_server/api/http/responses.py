"""Responses: JSON, stored files, and streams that notice when the client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, BinaryIO

from pydantic import BaseModel
from pydantic_core import to_json
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from daybreak_server.api.asyncio_tasks import cancel_and_wait
from daybreak_server.ports.blobs import Blobs

CHUNK_BYTES = 256 * 1024


def json_response(
    body: BaseModel | dict[str, Any], *, status: int = 200, headers: Mapping[str, str] | None = None
) -> Response:
    """A response with JSON. Fields of a model that are ``None`` are left out."""
    if isinstance(body, BaseModel):
        encoded = body.model_dump_json(exclude_none=True).encode()
    else:
        encoded = to_json(body, inf_nan_mode="null")
    return _JsonResponse(encoded, status, headers)


class _JsonResponse(Response):
    """A response with JSON. It encodes its headers itself, because Starlette's own response takes longer to do so."""

    def __init__(self, body: bytes, status: int, headers: Mapping[str, str] | None) -> None:
        self.status_code = status
        self.background = None
        self.body = body
        self.raw_headers = [
            (b"content-length", b"%d" % len(body)),
            (b"content-type", b"application/json"),
            *(
                (name.lower().encode("latin-1"), value.encode("latin-1"))
                for name, value in (headers or {}).items()
            ),
        ]


async def until_disconnect(receive: Receive, sending: Coroutine[Any, Any, None]) -> None:
    """Run ``sending`` until it ends or the client disconnects. Raises what ``sending`` raises.

    Starlette's own streaming response notices a disconnect only when it next sends. This function notices it at once.
    """
    sender = asyncio.create_task(sending)
    listener = asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({sender, listener}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await cancel_and_wait(sender, listener)
    if not sender.cancelled() and (error := sender.exception()) is not None:
        raise error


async def _disconnected(receive: Receive) -> None:
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
        """Send the file.

        :raises BlobError: if the file cannot be opened. Nothing has been sent, so the client gets an error response.
        """
        reader = await asyncio.to_thread(self._blobs.open, self._key, start=self._start, length=self._length)
        try:
            await until_disconnect(receive, self._send_all(reader, send))
        finally:
            await asyncio.to_thread(reader.close)

    async def _send_all(self, reader: BinaryIO, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        remaining = self._length
        while remaining > 0:
            chunk = await asyncio.to_thread(reader.read, min(CHUNK_BYTES, remaining))
            if not chunk:
                raise EOFError(
                    f"{self._key} is shorter than the task's record says: {remaining} bytes are missing"
                )
            remaining -= len(chunk)
            await send({"type": "http.response.body", "body": chunk, "more_body": remaining > 0})
        if self._length == 0:
            await send({"type": "http.response.body", "body": b"", "more_body": False})
