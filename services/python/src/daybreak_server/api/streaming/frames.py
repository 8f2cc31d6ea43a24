"""Events on their way to subscribers: encoded once, shared by all of them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from pydantic_core import to_json

from daybreak.wire import ErrorCode, EventType
from daybreak.wire.events import TERMINAL_EVENTS
from daybreak_server.api import path_prefix, serializers
from daybreak_server.api.problems import ApiError
from daybreak_server.domain.tasks import EventRecord

EventKey = tuple[int, int]
"""An event id as numbers, which compare as the events are ordered: milliseconds, and a count within them."""

_ID = re.compile(r"(\d{1,20})-(\d{1,20})")
_MAX_PART = (1 << 64) - 1
WAITING = frozenset({EventType.QUEUED.value, EventType.RETRYING.value})
"""Types after which a task waits for a group."""
_WITH_LINKS = frozenset({EventType.ARTIFACT.value, EventType.PREVIEW.value, EventType.SUCCEEDED.value})
MAX_PREFIXES = 8
"""Prefixes for which an event is kept; for more it is encoded each time."""
_TERMINAL = frozenset(kind.value for kind in TERMINAL_EVENTS)


def parse_id(text: str) -> EventKey:
    """The numbers of an event id. :raises ApiError: ``bad_event_id``."""
    match = _ID.fullmatch(text)
    key = (int(match[1]), int(match[2])) if match and text.isascii() else None
    if key is None or max(key) > _MAX_PART:
        raise ApiError(ErrorCode.BAD_EVENT_ID, "An event id looks like 1732190000123-0.")
    return key


def format_id(key: EventKey) -> str:
    """The id of these numbers."""
    return f"{key[0]}-{key[1]}"


def before(key: EventKey) -> EventKey:
    """The greatest id below ``key``."""
    ms, count = key
    return (ms, count - 1) if count else (max(0, ms - 1), _MAX_PART if ms else 0)


class Frame:
    """One event, encoded. ``key`` is ``None`` for what is not in the log: wake, position, reset."""

    __slots__ = ("_elsewhere", "_remake", "_sse", "_text", "body", "key", "mark", "type")

    def __init__(
        self,
        kind: str,
        body: bytes,
        *,
        key: EventKey | None = None,
        mark: object = None,
        remake: Callable[[], bytes] | None = None,
    ) -> None:
        self.type = kind
        self.body = body
        self.key = key
        self.mark = mark
        """For what is not in the log: equal marks say the same thing, which is then not said again."""
        self._remake = remake
        """Encodes it again, where there are links in it, which begin with the prefix of who follows."""
        self._elsewhere: dict[str, Frame] = {}
        self._sse: bytes | None = None
        self._text: str | None = None

    def below(self, path: str) -> Frame:
        """The same event for those who reach the API below this prefix."""
        if not path or self._remake is None:
            return self
        found = self._elsewhere.get(path)
        if found is None:
            with path_prefix.using(path):
                found = Frame(self.type, self._remake(), key=self.key, mark=self.mark)
            if len(self._elsewhere) < MAX_PREFIXES:
                self._elsewhere[path] = found
        return found

    @property
    def terminal(self) -> bool:
        """Whether it is its task's last event."""
        return self.type in _TERMINAL

    @property
    def sse(self) -> bytes:
        """As ``text/event-stream``. JSON holds no line breaks, so one ``data:`` line is enough."""
        if self._sse is None:
            id_line = b"" if self.key is None else b"id: %s\n" % format_id(self.key).encode()
            self._sse = b"%sevent: %s\ndata: %s\n\n" % (id_line, self.type.encode(), self.body)
        return self._sse

    @property
    def text(self) -> str:
        """As a WebSocket's text frame."""
        if self._text is None:
            self._text = self.body.decode()
        return self._text


def logged(event: EventRecord) -> Frame:
    """An event of the log. It is shared by all who follow, so its links have no prefix: see :meth:`Frame.below`."""
    with path_prefix.using(""):
        body = _logged(event)
    remake = partial(_logged, event) if event.type in _WITH_LINKS else None
    return Frame(event.type, body, key=parse_id(event.id), remake=remake)


def _logged(event: EventRecord) -> bytes:
    data = serializers.public_data(event.task, event.type, event.data)
    return _encode(
        event.type, event.task, event.at_ms, data, event_id=event.id, attempt=event.attempt or None
    )


def position(task: str, place: Mapping[str, Any], now_ms: int) -> Frame:
    """Where a queued task stands now."""
    kind = EventType.POSITION.value
    return Frame(kind, _encode(kind, task, now_ms, place), mark=(kind, place.get("position")))


def wake(task: str, waking: Mapping[str, Any], now_ms: int) -> Frame:
    """What the pool does to get a group."""
    kind = EventType.WAKE.value
    return Frame(
        kind, _encode(kind, task, now_ms, waking), mark=(kind, waking["phase"], waking.get("message", ""))
    )


def reset(shown: Mapping[str, Any], now_ms: int) -> Frame:
    """A snapshot instead of events that cannot be sent."""
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
    event |= {"task": task, "type": kind, "at": serializers.written(at_ms)}
    if attempt is not None:
        event["attempt"] = attempt
    event["data"] = data
    return to_json(event, inf_nan_mode="null")
