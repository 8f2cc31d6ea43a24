"""The state of a live session, without I/O: what must be sent again after a lost connection, and what has arrived.

When a connection begins, and from time to time while audio arrives, the server names the first sample that it still
needs (``send_from``). :class:`Speech` keeps the audio from that sample on. When a connection is lost, the client
connects again, names the last event that it has received, and sends the audio that the server asks for. So no audio is
lost, and no event comes twice.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json

from daybreak.core.follow import parse_event_id
from daybreak.core.replies import error_of
from daybreak.errors import ApiError, ArgumentError, DaybreakError, ProtocolError, TransportError
from daybreak.wire import SessionEvent
from daybreak.wire.sessions import SAMPLE_RATES

SAMPLE_BYTES = {"pcm16": 2, "float32": 4}
MAX_KEPT_S = 120.0
"""How many seconds of audio are kept for a new connection. At this limit, sending waits."""
FRAME_S = 0.5
"""The length of a frame of audio that is sent as fast as possible."""
PACED_FRAME_S = 0.1
"""The length of a frame of audio that is sent as if it were spoken now."""
MAX_LATE_S = 1.0
"""A sender that is later than this has paused. Its next audio then counts as spoken from the moment it is sent."""
_RETRIED = frozenset({"store_unavailable", "shutting_down", "too_many_streams"})
_NORMAL, _TOO_LARGE = 1000, 1009


class Speech:
    """The audio and the events of one session.

    :raises ArgumentError: if sessions do not accept this format of audio.
    """

    def __init__(
        self, *, encoding: str = "pcm16", sample_rate: int = 16_000, after: str | None = None
    ) -> None:
        check_format(encoding, sample_rate)
        self.encoding = encoding
        self.sample_rate = sample_rate
        self.last_event = after
        self.ended = False
        """Whether the event that ends the session has been received."""
        self.input_ended = False
        self._audio = bytearray()
        self._start = 0
        """The position of the first sample that is kept."""
        self._positioned = False

    @property
    def query(self) -> dict[str, str | int]:
        """The query parameters of the next connection."""
        query: dict[str, str | int] = {"encoding": self.encoding, "sample_rate": self.sample_rate}
        return query | ({"after": self.last_event} if self.last_event else {})

    def seconds(self, frame: bytes) -> float:
        """How long a frame lasts."""
        return len(frame) / (self._size * self.sample_rate)

    @property
    def position(self) -> int:
        """The position of the next sample that is sent."""
        return self._start + len(self._audio) // self._size

    @property
    def full(self) -> bool:
        """Whether no more audio can be kept."""
        return len(self._audio) >= MAX_KEPT_S * self.sample_rate * self._size

    def add(self, audio: bytes) -> None:
        """Keep audio that is being sent. Raises ``ArgumentError`` after the end of the input."""
        if self.input_ended:
            raise ArgumentError("the input of this session has ended")
        self._audio += audio

    def frames(self, audio: bytes, *, paced: bool = False) -> list[bytes]:
        """Divide audio into frames that the server accepts in every format. With ``paced``, the frames are shorter."""
        step = int((PACED_FRAME_S if paced else FRAME_S) * self.sample_rate) * self._size
        return [audio[first : first + step] for first in range(0, len(audio), step)]

    def on_ready(self, message: dict[str, Any]) -> list[bytes]:
        """The frames that a new connection must send first. Raises ``DaybreakError`` if the audio is no longer kept."""
        send_from = int(message.get("send_from", 0))
        if not self._positioned:
            self._positioned, self._start = True, send_from
        if send_from < self._start:
            raise ProtocolError(f"the server needs audio from sample {send_from}, which is no longer kept")
        self._forget(send_from)
        return self.frames(bytes(self._audio))

    def on_message(self, text: str) -> SessionEvent | None:
        """Process a message. Returns its event if the event is new. Raises the error that the message reports."""
        message = self.parse(text)
        kind = message.get("type")
        if kind == "received":
            self._forget(int(message.get("send_from", 0)))
            return None
        if kind == "error":
            raise self.error(message)
        if "id" not in message:
            return None
        try:
            event = SessionEvent.model_validate(message)
        except ValidationError:
            return None  # a type of event that this version does not know
        if self.last_event and parse_event_id(event.id) <= parse_event_id(self.last_event):
            return None
        self.last_event = event.id
        self.ended = event.terminal
        return event

    @staticmethod
    def parse(text: str | bytes) -> dict[str, Any]:
        """Parse a message. Raises ``ProtocolError`` if the text is not a message."""
        try:
            message = from_json(text)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise ProtocolError(f"the session's stream sent something that is not a message: {text[:100]!r}")
        return message

    @staticmethod
    def error(message: dict[str, Any]) -> ApiError:
        """The error that a message reports."""
        return error_of(
            str(message.get("code", "")), str(message.get("message", "")), message.get("retry_after_s")
        )

    def on_closed(self, code: int | None, reason: str = "") -> None:
        """Process the end of a connection. Raises the error that ended it, unless the client should connect again."""
        if code == _TOO_LARGE:
            raise ArgumentError("a frame is larger than the server accepts; send less at once")
        if code is not None and 4000 <= code < 5000 and reason not in _RETRIED:
            raise error_of(reason, f"the server closed the stream: {reason or code}", None)

    @property
    def _size(self) -> int:
        return SAMPLE_BYTES[self.encoding]

    def _forget(self, position: int) -> None:
        kept = max(self._start, position)
        del self._audio[: (kept - self._start) * self._size]
        self._start = kept


def check_format(encoding: str, sample_rate: int) -> None:
    """Raise ``ArgumentError`` if sessions do not accept this format of audio."""
    if encoding not in SAMPLE_BYTES:
        raise ArgumentError(f"{encoding!r} is not an encoding; use pcm16 or float32")
    if sample_rate not in SAMPLE_RATES:
        raise ArgumentError(
            f"{sample_rate} is not a sample rate; use one of {', '.join(map(str, SAMPLE_RATES))}"
        )


class Pacer:
    """Delays frames as if they were spoken live: each is due when its last sample would have been spoken."""

    def __init__(self) -> None:
        self._spoken = 0.0
        """The time at which the last sample of the audio so far is spoken."""

    def delay(self, now: float, seconds: float) -> float:
        """How long to wait before a frame that lasts ``seconds`` is sent."""
        begun = self._spoken if now - self._spoken < MAX_LATE_S else now
        self._spoken = begun + seconds
        return max(0.0, self._spoken - now)


def is_temporary(error: DaybreakError) -> bool:
    """Whether the client should connect again after this error."""
    return isinstance(error, TransportError) or (isinstance(error, ApiError) and error.code in _RETRIED)
