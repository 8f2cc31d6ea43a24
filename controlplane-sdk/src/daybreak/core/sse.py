"""An incremental parser for server-sent events."""

from __future__ import annotations

import codecs
from dataclasses import dataclass

from daybreak.errors import ProtocolError

MAX_EVENT_CHARACTERS = 4 << 20
"""Daybreak's events are smaller. A larger one comes from another server and must not fill the memory."""


@dataclass(frozen=True)
class SseMessage:
    """One event of the protocol. ``id`` is set only if this event itself carries an id."""

    event: str = "message"
    data: str = ""
    id: str | None = None


class SseParser:
    """Turns chunks of bytes, split at any position, into messages. Use one parser per connection."""

    def __init__(self, *, max_event_characters: int = MAX_EVENT_CHARACTERS) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._max = max_event_characters
        self._tail = ""
        self._size = 0
        self._event = ""
        self._data: list[str] = []
        self._id: str | None = None

    def feed(self, chunk: bytes) -> list[SseMessage]:
        """The messages that this chunk completes. Raises ``ProtocolError`` if an event is too large."""
        text = self._tail + self._decoder.decode(chunk)
        # A trailing "\r" may be half of a "\r\n", so it stays in the tail until the next chunk.
        ends_in_cr = text.endswith("\r")
        lines = (text[:-1] if ends_in_cr else text).replace("\r\n", "\n").replace("\r", "\n").split("\n")
        self._tail = lines.pop() + ("\r" if ends_in_cr else "")
        messages = [message for line in lines if (message := self._parse_line(line)) is not None]
        self._check_size(self._size + len(self._tail))
        return messages

    def _check_size(self, characters: int) -> None:
        if characters > self._max:
            raise ProtocolError(f"the stream sent an event larger than {self._max} characters")

    def _parse_line(self, line: str) -> SseMessage | None:
        if not line:
            return self._dispatch()
        self._size += len(line)
        self._check_size(self._size)
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        return None

    def _dispatch(self) -> SseMessage | None:
        message = (
            SseMessage(self._event or "message", "\n".join(self._data), self._id or None)
            if self._data
            else None
        )
        self._event, self._data, self._id, self._size = "", [], None, 0
        return message
