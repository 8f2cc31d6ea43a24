"""What a process does with each change of state that it makes: it writes a line of the log. If the change ends a
session, the process also records this end in the session's trace."""

from __future__ import annotations

from collections.abc import Callable

from daybreak_server.domain.changes import Change, OnChange
from daybreak_server.domain.session_changes import SessionChange, SessionChangeKind
from daybreak_server.observability.session_log import log_session
from daybreak_server.observability.task_log import log_change as log_task_change


def log_change(change: Change) -> None:
    """Log a change that the store reports. Never raises."""
    if isinstance(change, SessionChange):
        log_session(change)
    else:
        log_task_change(change)


def recorder(session_ended: Callable[[SessionChange], None]) -> OnChange:
    """Return a function that logs each change. ``session_ended`` records a session's end in the session's trace."""

    def record(change: Change) -> None:
        log_change(change)
        if isinstance(change, SessionChange) and change.kind is SessionChangeKind.ENDED:
            session_ended(change)

    return record
