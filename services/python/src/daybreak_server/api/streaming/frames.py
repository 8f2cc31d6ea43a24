"""Frames: events encoded once and shared by all their subscribers."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pydantic_core import to_json

from daybreak.wire import ErrorCode, EventType
from daybreak.wire.events import TERMINAL_EVENTS
from daybreak_server.api import path_prefix, serializers
from daybreak_server.api.errors import ApiError
from daybreak_server.domain.tasks import EventRecord

EventKey = tuple[int, int]
"""An event id as numbers: milliseconds, and a count within the millisecond. Keys sort in the order of events."""

_ID = re.compile(r"(\d{1,20})-(\d{1,20})")
_MAX_PART = (1 << 64) - 1
WAITING = frozenset({EventType.QUEUED.value, EventType.RETRYING.value})
"""Types of events after which the task waits for a group."""
_WITH_LINKS = frozenset({EventType.ARTIFACT.value, EventType.PREVIEW.value, EventType.SUCCEEDED.value})
MAX_PREFIXES = 8
"""The number of path prefixes for which a frame keeps the encoded event. For others, it encodes the event each time."""
_TERMINAL = frozenset(kind.value for kind in TERMINAL_EVENTS)


def parse_id(text: str) -> EventKey:
    """The key of an event id. :raises ApiError: ``bad_event_id``."""
    match = _ID.fullmatch(text)
    key = (int(match[1]), int(match[2])) if match and text.isascii() else None
    if key is None or max(key) > _MAX_PART:
        raise ApiError(
            ErrorCode.BAD_EVENT_ID,
            "The event id is not valid. An event id looks like 1732190000123-0. Send the id of an event, or none.",
        )
    return key


def format_id(key: EventKey) -> str:
    """The event id of a key."""
    return f"{key[0]}-{key[1]}"


def predecessor(key: EventKey) -> EventKey:
    """The greatest key below ``key``."""
    ms, count = key
    return (ms, count - 1) if count else (max(0, ms - 1), _MAX_PART if ms else 0)


class Frame:
    """One encoded event. ``key`` is ``None`` for events that are not in the log (``wake``, ``position``, ``reset``)."""

    __slots__ = ("_by_prefix", "_encode_again", "_sse", "_text", "body", "dedup_key", "key", "type")

    def __init__(
        self,
        kind: str,
        body: bytes,
        *,
        key: EventKey | None = None,
        dedup_key: object = None,
        encode_again: Callable[[], bytes] | None = None,
    ) -> None:
        self.type = kind
        self.body = body
        self.key = key
        self.dedup_key = dedup_key
        """For events that are not in the log: a frame is not sent if the last frame of its type had the same
        ``dedup_key``, and no event of the log has been sent since."""
        self._encode_again = encode_again
        """Encodes the event for another path prefix; ``None`` for events without links."""
        self._by_prefix: dict[str, Frame] = {}
        self._sse: bytes | None = None
        self._text: str | None = None

    def with_prefix(self, prefix: str) -> Frame:
        """This frame's event for subscribers who reach the API below this path prefix."""
        if not prefix or self._encode_again is None:
            return self
        found = self._by_prefix.get(prefix)
        if found is None:
            with path_prefix.using(prefix):
                found = Frame(self.type, self._encode_again(), key=self.key, dedup_key=self.dedup_key)
            if len(self._by_prefix) < MAX_PREFIXES:
                self._by_prefix[prefix] = found
        return found

    @property
    def terminal(self) -> bool:
        """Whether this is the task's last event."""
        return self.type in _TERMINAL

    @property
    def sse(self) -> bytes:
        """The event as ``text/event-stream``. The JSON has no line breaks, so one ``data:`` line is enough."""
        if self._sse is None:
            id_line = b"" if self.key is None else b"id: %s\n" % format_id(self.key).encode()
            self._sse = b"%sevent: %s\ndata: %s\n\n" % (id_line, self.type.encode(), self.body)
        return self._sse

    @property
    def text(self) -> str:
        """The event as the text frame of a WebSocket."""
        if self._text is None:
            self._text = self.body.decode()
        return self._text


def event_frame(event: EventRecord) -> Frame:
    """The frame of an event in the log. All subscribers share it, so its links have no prefix.

    See :meth:`Frame.with_prefix`.
    """
    with path_prefix.using(""):
        body = _encode_event(event)
    encode_again = partial(_encode_event, event) if event.type in _WITH_LINKS else None
    return Frame(event.type, body, key=parse_id(event.id), encode_again=encode_again)


def _encode_event(event: EventRecord) -> bytes:
    data = serializers.public_data(event.task, event.type, event.data)
    return _encode(
        event.type, event.task, event.at_ms, data, event_id=event.id, attempt=event.attempt or None
    )


def position(task: str, queue: Mapping[str, Any], now_ms: int) -> Frame:
    """The current queue position of a task."""
    kind = EventType.POSITION.value
    return Frame(kind, _encode(kind, task, now_ms, queue), dedup_key=(kind, queue.get("position")))


def wake(task: str, shown: Mapping[str, Any], now_ms: int) -> Frame:
    """The pool's wake."""
    kind = EventType.WAKE.value
    return Frame(
        kind, _encode(kind, task, now_ms, shown), dedup_key=(kind, shown["phase"], shown.get("message", ""))
    )


def reset(shown: Mapping[str, Any], now_ms: int) -> Frame:
    """The task as it is now, in place of events that cannot be sent."""
    kind = EventType.RESET.value
    return Frame(kind, _encode(kind, shown["id"], now_ms, {"task": shown}))


def _encode(
    kind: str,
    task: str,
    at_ms: int,
    data: Mapping[str, Any],
    *,
    event_id: str | None = None,
    attempt: int | None = None,
) -> bytes:
    event: dict[str, Any] = {} if event_id is None else {"id": event_id}
    event |= {"task": task, "type": kind, "at": serializers.iso8601(at_ms)}
    if attempt is not None:
        event["attempt"] = attempt
    event["data"] = data
    return to_json(event, inf_nan_mode="null")
