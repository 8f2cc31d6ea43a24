"""Changes of sessions' states, as seen by the process that makes the change. Each becomes one line of the log."""

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
    """Its group changed the length of its turns."""
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
    """How often a group has claimed it."""
    group: str = ""
    """The group that owns it, or owned it last."""
    tenant: str = ""
    trace_context: TraceContext | None = None
    reason: str = ""
    """Why it was released or refused, or has ended."""
    error: str = ""
    """The code of the error. Its message may quote the model's text, so it is not here."""
    latency_multiplier: int | None = None
