"""The store of sessions: as gateways use it (async), and as the leader of a group uses it (blocking and fenced)."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.sessions import (
    Intake,
    NewSession,
    SessionClaim,
    SessionCommit,
    SessionEnd,
    SessionEvent,
    SessionId,
    SessionLease,
    SessionNews,
    SessionRecord,
    SessionsMeasured,
    SessionsOverview,
)
from daybreak_server.ports.store_errors import StoreError

TENANT_LIMIT = "tenant_limit"
"""The reason of :class:`SessionsFullError` if the tenant has too many open sessions."""


class SessionsFullError(StoreError):
    """The pool accepts no further session now (``reason``: ``limit`` or ``lag``), or no further one from this tenant
    (:data:`TENANT_LIMIT`). ``retry_after_s`` estimates when a session will end, from the usual length of sessions."""

    def __init__(self, message: str, *, reason: str, retry_after_s: float) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after_s = retry_after_s


class SessionUnknownError(StoreError):
    """There is no such session, or it belongs to another tenant."""


class SessionEndedError(StoreError):
    """The session has ended, so it accepts no audio."""


class AudioGapError(StoreError):
    """The audio begins after the end of the journal's audio. ``received`` is this end: send audio from there."""

    def __init__(self, message: str, *, received: int) -> None:
        super().__init__(message)
        self.received = received


class AudioBacklogError(StoreError):
    """The session has too much audio that the model has not processed yet. Nothing was appended; try again
    later."""


class SessionStore(Protocol):
    """Sessions as gateways use them. Each method may raise :class:`StoreUnavailableError`."""

    async def open_session(self, new: NewSession) -> SessionRecord:
        """Open a session. A repeated call with the same id returns the session as it is.

        :raises SessionsFullError: when the pool or the tenant has as many open sessions as it may have, or when the
            pool's groups lag too much.
        """

    async def session(self, session: SessionId, *, tenant: str) -> SessionRecord:
        """The session. :raises SessionUnknownError: when the tenant has no such session."""

    async def announce_progress(self, session: SessionId, *, tenant: str) -> SessionRecord:
        """Return the session, and ask the store to announce the model's next progress to :class:`SessionEvents`.

        :raises SessionUnknownError: when the tenant has no such session.
        """

    async def sessions(self, pool: str, *, tenant: str | None = None) -> Sequence[SessionRecord]:
        """The sessions of a pool that have not ended, oldest first, and at most the oldest thousand.
        ``tenant``: only the sessions of this tenant."""

    async def append_audio(
        self, session: SessionId, samples: bytes, *, at: int, end: bool = False
    ) -> SessionRecord:
        """Append audio that begins at ``at``. Audio that the journal already has is skipped, so calls may be repeated.

        Each call that leaves no gap counts as activity of the session, even if nothing is left to append. After the end
        of the input, a call no longer counts.

        ``end``: no more audio will follow.

        :raises SessionEndedError: when the session has ended.
        :raises SessionUnknownError: when there is no such session, or its retention is over.
        :raises AudioGapError: when ``at`` lies after the end of the journal's audio.
        :raises AudioBacklogError: when too much audio waits for the model.
        """

    async def close_session(
        self, session: SessionId, *, reason: SessionEnd = SessionEnd.CLOSED
    ) -> SessionRecord:
        """End a session at once. An ended session does not change.

        :raises SessionUnknownError: when there is no such session, or its retention is over.
        """

    async def session_events(
        self, session: SessionId, *, after: str = "0-0", limit: int = 1000
    ) -> Sequence[SessionEvent]:
        """The events that follow ``after``. :raises SessionUnknownError: when no session can have this id."""

    async def sessions_overview(self, pool: str) -> SessionsOverview:
        """The number of the pool's sessions, and the measurements of its groups."""


class SessionWatch(Protocol):
    """Waits for the progress of a session's model."""

    async def read(self) -> SessionRecord:
        """The session now. :raises StoreError:"""

    async def progress(self, *, within_s: float = math.inf) -> None:
        """Wait until the model has processed more audio than at the last ``read``, or the session has ended.

        May return earlier, so read the session again. Returns after ``within_s`` at the latest.
        """


class SessionEvents(Protocol):
    """Follows events of sessions. One object reads for all sessions of a process, over few connections."""

    def follow_session(self, session: SessionId, *, after: str = "0-0") -> AsyncIterator[SessionEvent]:
        """The events that follow ``after``, in order, as they arrive; ends after the event ``ended``.

        :raises SessionUnknownError: when no session can have this id.
        """

    def watch_session(self, session: SessionId, *, tenant: str) -> AbstractAsyncContextManager[SessionWatch]:
        """Watch a session of this tenant. :raises SessionUnknownError: when no session can have this id."""


def take_all() -> Intake:
    """Return ``Intake.ALL``."""
    return Intake.ALL


class SessionWork(Protocol):
    """The sessions of one pool as the leader of a group uses them. All calls block and may come from any thread."""

    def claim_sessions(
        self, group: GroupId, *, room: int, wait_s: float, intake: Callable[[], Intake] = take_all
    ) -> Sequence[SessionClaim]:
        """Claim up to ``room`` sessions that no group owns: orphans before new ones, oldest first.

        Waits up to ``wait_s`` for one. ``intake`` says which sessions this group takes now. It is called after each
        wait, because its answer may have changed. Other groups can claim the sessions that this group does not take.
        """

    def read_audio(self, received: Mapping[SessionLease, int], *, wait_s: float) -> Sequence[SessionNews]:
        """The new audio of these sessions after the given positions. Waits up to ``wait_s`` for new audio.

        Only one thread at a time may call this.
        """

    def renew_sessions(
        self, group: GroupId, leases: Sequence[SessionLease], *, measured: SessionsMeasured
    ) -> Sequence[SessionLease]:
        """Extend the leases, and publish the group's measurements. Returns the stale leases."""

    def commit(self, commits: Sequence[SessionCommit]) -> Sequence[SessionLease]:
        """Write the results of the model, in one call. Returns the stale leases; nothing was written for those.

        After :class:`StoreUnavailableError`, repeat the same commits. Their numbers ensure that no commit takes effect
        twice.
        """

    def release_sessions(self, leases: Sequence[SessionLease]) -> None:
        """Release sessions, so that another group can claim them at once."""

    def room_elsewhere(self, group: GroupId) -> int:
        """How many sessions the other groups of the pool have room for, according to their last reports."""

    def close(self) -> None:
        """Close the connections. A waiting call ends soon."""
