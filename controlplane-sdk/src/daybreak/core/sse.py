"""Server-sent events, from bytes as they come."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from daybreak.errors import ProtocolError

MAX_EVENT_BYTES = 4 << 20
"""A stream that sends more without ending an event is not one of ours."""


@dataclass(frozen=True)
class Message:
    """One event as the protocol knows it; ``id`` is the one given with this very event."""

    event: str = "message"
    data: str = ""
    id: str | None = None


class SseParser:
    """Feed it bytes, cut anywhere; it gives the messages that are complete. One parser per connection."""

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._max = max_event_bytes
        self._tail = ""
        self._size = 0
        self._event = ""
        self._data: list[str] = []
        self._id: str | None = None

    def feed(self, chunk: bytes) -> list[Message]:
        """Messages that the chunk completes. Raises ``ProtocolError`` for an event without end."""
        text = self._tail + self._decoder.decode(chunk)
        # A "\r" at the very end may be half of a "\r\n": it waits for the next chunk.
        held = text.endswith("\r")
        lines = (text[:-1] if held else text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._tail = lines.pop() + ("\r" if held else "")
        messages = [message for line in lines if (message := self._line(line)) is not None]
        if self._size + len(self._tail) > self._max:
            raise ProtocolError(f"an event of the stream is larger than {self._max} bytes")
        return messages

    def _line(self, line: str) -> Message | None:
        if not line:
            return self._dispatch()
        self._size += len(line)
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        return None

    def _dispatch(self) -> Message | None:
        message = (
            Message(self._event or "message", "\n".join(self._data), self._id or None) if self._data else None
        )
        self._event, self._data, self._id, self._size = "", [], None, 0
        return message
