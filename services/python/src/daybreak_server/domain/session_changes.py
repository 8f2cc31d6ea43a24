"""Changes of sessions. The process that makes a change logs one line about the change."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from daybreak_server.domain.sessions import SessionId
from daybreak_server.domain.tracing import TraceContext


class SessionChangeKind(StrEnum):
    """What happened to a session."""

    OPENED = "opened"
    CLAIMED = "claimed"
    """A group owns it now."""
    DEGRADED = "degraded"
    """Its group changed the length of the session's turns."""
    RELEASED = "released"
    """It lost its group, and waits for another one."""
    ENDED = "ended"
    REFUSED = "refused"
    """It was not opened, because the pool or the tenant has no room for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionChange:
    """A change that this process made. Empty fields are unknown or do not apply."""

    session: SessionId
    kind: SessionChangeKind
    attempt: int = 0
    """How many times groups have claimed the session."""
    group: str = ""
    """The group that owns the session, or owned it last."""
    tenant: str = ""
    trace_context: TraceContext | None = None
    reason: str = ""
    """Why the session was released or refused, or has ended."""
    error: str = ""
    """The code of the error. The error's message is left out, because it may quote the model's text."""
    latency_multiplier: int | None = None
