"""The traces of the sessions that a group has. A session that is not sampled costs only a dictionary lookup."""

from __future__ import annotations

from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.sessions import SessionClaim, SessionCommit, SessionId
from daybreak_server.ports.session_tracing import (
    NO_CLAIM_TRACE,
    ClaimTrace,
    NoSessionTracing,
    SessionTracing,
)

_NO_GROUP = GroupId("")
LOST = "lost"
"""The reason in the trace if the group has lost its lease of the session, and does not learn why."""


class SessionTraces:
    """The traces of the sessions of one group. A trace lasts from a claim until the group no longer has the session."""

    def __init__(self, tracing: SessionTracing | None = None, *, group: GroupId = _NO_GROUP) -> None:
        self._tracing = tracing or NoSessionTracing()
        self._group = group
        self._traces: dict[SessionId, ClaimTrace] = {}
        self._textless: set[SessionId] = set()
        """Sampled sessions for which the group has written no text."""

    def took(self, claim: SessionClaim) -> None:
        """Begin the trace of a session that the group has claimed."""
        trace = self._tracing.claimed(claim, self._group)
        if trace is not NO_CLAIM_TRACE:
            self._traces[claim.lease.session] = trace
            self._textless.add(claim.lease.session)

    def wrote_text(self, session: SessionId) -> None:
        """Record that the model has written text for a session."""
        if session in self._textless:
            self._textless.discard(session)
            self._traces[session].first_text()

    def wrote(self, commit: SessionCommit) -> None:
        """Record what a commit of the group says: that a turn is complete, or that turns have a new length."""
        trace = self._traces.get(commit.lease.session)
        if trace is None:
            return
        if commit.turn is not None and commit.turn.complete:
            trace.turn_ended()
        if commit.latency_multiplier is not None:
            trace.degraded(commit.latency_multiplier)

    def ended(self, session: SessionId, reason: str, *, error: str = "") -> None:
        """End the trace of a session that the group no longer has."""
        self._textless.discard(session)
        trace = self._traces.pop(session, None)
        if trace is not None:
            trace.ended(reason, error=error)

    def end_all(self, reason: str, *, error: str) -> None:
        """End all traces, because the group is broken and has no sessions any more."""
        for session in list(self._traces):
            self.ended(session, reason, error=error)
