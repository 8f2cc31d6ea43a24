"""Streaming sessions, which translate speech while it arrives. ``docs/wire-sessions.md`` explains each field."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import Field

from daybreak.wire.base import RequestModel, ResponseModel, Time

SAMPLE_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
"""The rates of audio that the server accepts, in samples a second."""
MAX_FRAME_BYTES = 1 << 20
"""The largest WebSocket frame that the server accepts."""


class SessionState(StrEnum):
    """States of a session."""

    WAITING = "waiting"
    ACTIVE = "active"
    ENDED = "ended"


class SessionEventType(StrEnum):
    """Types of a session's events."""

    STARTED = "started"
    TEXT = "text"
    SEGMENT = "segment"
    DEGRADED = "degraded"
    WAITING = "waiting"
    ENDED = "ended"


class OpenSessionRequest(RequestModel):
    """The body of ``POST /v1/sessions``."""

    pool: str | None = Field(None, description="The pool, or the name of its model.")
    source: str | None = Field(
        None, max_length=60, description="The language that is spoken: `en` or `English`."
    )
    target: str = Field(max_length=60, description="The language of the text: `de` or `German`.")
    latency_multiplier: Annotated[int, Field(ge=1, le=8)] = Field(
        1, description="How many of the model's blocks of audio make a turn."
    )
    client: str = Field("", max_length=200, description="A name for the session.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="Stored with the session; models do not get them yet."
    )


class SessionError(ResponseModel):
    """Why a session failed."""

    code: str
    message: str


class SessionLinks(ResponseModel):
    """Paths of a session."""

    self: str
    stream: str


class Session(ResponseModel):
    """A session at one moment."""

    id: str
    object: Literal["session"] = "session"
    pool: str
    state: SessionState
    source: str
    target: str
    client: str = ""
    latency_multiplier: int = 1
    attempt: int = 0
    opened_at: Time
    touched_at: Time | None = None
    received_ms: int = 0
    consumed_ms: int = 0
    input_ended: bool = False
    last_event: str = "0-0"
    end: str | None = None
    error: SessionError | None = None
    group: str | None = None
    traceparent: str | None = None
    links: SessionLinks | None = None


class SessionList(ResponseModel):
    """Open sessions, oldest first."""

    object: Literal["list"] = "list"
    data: list[Session]


class SessionEvent(ResponseModel):
    """An event of a session. Ids increase within a session."""

    id: str
    session: str
    type: SessionEventType
    at: Time
    data: dict[str, Any] = Field(default_factory=dict)

    @property
    def text(self) -> str:
        """The text of the event; empty if it has none."""
        return str(self.data.get("text", ""))

    @property
    def terminal(self) -> bool:
        """Whether this is the session's last event."""
        return self.type is SessionEventType.ENDED
