"""How the server records the traces of streaming sessions.

A trace begins with the request or the connection that opens the session. The session's record carries the trace's
context, so each group that owns the session continues the trace. No method here raises or blocks.
"""

from __future__ import annotations

from typing import Protocol

from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.session_changes import SessionChange
from daybreak_server.domain.sessions import SessionClaim, SessionRecord
from daybreak_server.domain.tracing import TraceContext


class OpeningTrace(Protocol):
    """The trace of one request or connection that opens sessions."""

    @property
    def context(self) -> TraceContext | None:
        """The context that the session carries; ``None`` if the session belongs to no trace."""

    def opened(self, record: SessionRecord) -> None:
        """A session is open.

        If an earlier request with the same key opened the session, the session carries that request's context.
        """

    def ended(self, *, status: int | None = None, error: str = "") -> None:
        """The request is answered, or the connection has ended. ``error``: the code of the error, if there is one.

        Only the first call has an effect.
        """


class ClaimTrace(Protocol):
    """The trace of a session while one group owns it."""

    def first_text(self) -> None:
        """The model has written the group's first text for the session."""

    def turn_ended(self) -> None:
        """A turn is complete."""

    def degraded(self, latency_multiplier: int) -> None:
        """The length of turns has changed."""

    def ended(self, reason: str, *, error: str = "") -> None:
        """The group no longer has the session. ``error``: the code of the error, if there is one."""


class SessionTracing(Protocol):
    """Records the traces of sessions."""

    def opening(
        self, caller: TraceContext | None, *, method: str, route: str, scheme: str, path: str
    ) -> OpeningTrace:
        """Begin the trace of a request or a connection that may open sessions.

        ``caller``: the caller's context, which decides whether the trace is sampled. ``path``: without the query.
        """

    def claimed(self, claim: SessionClaim, group: GroupId) -> ClaimTrace:
        """Continue the trace of a session that a group has claimed."""

    def session_ended(self, change: SessionChange) -> None:
        """Record that a session has ended. This process has caused or noticed the end."""


class UnrecordedOpening:
    """A request or connection that is not recorded. The session still carries the caller's context."""

    __slots__ = ("context",)

    def __init__(self, context: TraceContext | None) -> None:
        self.context = context

    def opened(self, record: SessionRecord) -> None:
        """Do nothing."""

    def ended(self, *, status: int | None = None, error: str = "") -> None:
        """Do nothing."""


class NoClaimTrace:
    """Records nothing: the session belongs to no trace, or its trace is not sampled."""

    def first_text(self) -> None:
        """Do nothing."""

    def turn_ended(self) -> None:
        """Do nothing."""

    def degraded(self, latency_multiplier: int) -> None:
        """Do nothing."""

    def ended(self, reason: str, *, error: str = "") -> None:
        """Do nothing."""


class NoSessionTracing:
    """Records nothing. A caller's context is passed on as it is."""

    def opening(
        self, caller: TraceContext | None, *, method: str, route: str, scheme: str, path: str
    ) -> OpeningTrace:
        """Pass on the caller's context."""
        return UnrecordedOpening(caller)

    def claimed(self, claim: SessionClaim, group: GroupId) -> ClaimTrace:
        """Record nothing."""
        return NO_CLAIM_TRACE

    def session_ended(self, change: SessionChange) -> None:
        """Do nothing."""


NO_CLAIM_TRACE = NoClaimTrace()
