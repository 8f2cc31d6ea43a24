"""The body of a request on its way to a group.

The beginning of the body is read into memory, so that the gateway can send the request again, to another group. The
rest of a longer body is passed on as it arrives. Once a part of the rest has been passed on, the request cannot be sent
again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.requests import Request

from daybreak_server.api.http.request_body import header, too_large


class ClientGoneError(Exception):
    """The client has closed its connection, so nobody waits for the answer."""


class BuffersFullError(Exception):
    """The bodies that the gateway keeps in memory have reached their limit."""


class BufferedBytes:
    """Counts the bytes of all bodies that are kept in memory, including those that are still arriving."""

    def __init__(self, max_bytes: int) -> None:
        self.count = 0
        self._max_bytes = max_bytes

    def add(self, size: int) -> None:
        """Count more bytes. :raises BuffersFullError:"""
        if self.count + size > self._max_bytes:
            raise BuffersFullError
        self.count += size

    def remove(self, size: int) -> None:
        """Count fewer bytes."""
        self.count -= size


class ForwardedBody:
    """A body. ``buffered`` is its beginning, or all of it if ``complete``.

    :raises ApiError: ``too_large`` if the request says that its body is longer than ``max_bytes``.
    """

    def __init__(self, request: Request, *, max_bytes: int, in_memory: BufferedBytes) -> None:
        self.buffered = b""
        self.complete = False
        self.begun = False
        """Whether the beginning has been read."""
        self.passed_on = False
        """Whether a part of the rest was passed on. If so, the request cannot be sent again."""
        self._receive = request.receive
        self._max_bytes = max_bytes
        self._in_memory = in_memory
        self._kept = 0
        self._size = 0
        declared = header(request, b"content-length")
        self.length: int | None = int(declared) if declared and declared.isdecimal() else None
        """The length of the whole body, if it is known."""
        if self.length is not None and self.length > max_bytes:
            raise too_large(max_bytes)

    async def read_beginning(self, buffer_bytes: int) -> None:
        """Read until the end of the body, or until more than ``buffer_bytes`` are in memory. It may be called again,
        with a higher limit.

        :raises ApiError: ``too_large``
        :raises ClientGoneError: if the client went away before the body was complete
        :raises BuffersFullError: if there is no memory for more of the body
        """
        self.begun = True
        parts = [self.buffered] if self.buffered else []
        while not self.complete and self._size <= buffer_bytes:
            part = await self._next()
            self._in_memory.add(len(part))
            self._kept += len(part)
            parts.append(part)
        self.buffered = parts[0] if len(parts) == 1 else b"".join(parts)
        if self.complete:
            self.length = self._size

    def replace(self, whole: bytes) -> None:
        """Put another body in place of a complete one. :raises BuffersFullError:"""
        self._in_memory.add(len(whole))
        self._in_memory.remove(self._kept)
        self._kept = self.length = len(whole)
        self.buffered = whole

    def drop(self) -> None:
        """Stop counting the body as kept in memory, because it will not be sent again."""
        self._in_memory.remove(self._kept)
        self._kept = 0

    @property
    def rest(self) -> AsyncIterator[bytes] | None:
        """What follows the beginning; ``None`` if nothing does."""
        return None if self.complete else self._rest()

    async def _rest(self) -> AsyncIterator[bytes]:
        while not self.complete:
            part = await self._next()
            self.passed_on = True
            yield part

    async def _next(self) -> bytes:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part: bytes = message.get("body", b"")
        self._size += len(part)
        if self._size > self._max_bytes:
            raise too_large(self._max_bytes)
        self.complete = not message.get("more_body", False)
        return part
