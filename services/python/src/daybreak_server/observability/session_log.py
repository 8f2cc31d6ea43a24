"""One line of the log for each change of a streaming session's state, written by the process that made the change.

A line is missing if the process dies between the change and the line, or if the store's answer is lost. The events of
the session are the complete record. No line has text of a session. No line has the message of an error either, because
the message may quote such text.
"""

from __future__ import annotations

import functools
import logging

from daybreak_server.domain.ids import pool_of
from daybreak_server.domain.session_changes import SessionChange, SessionChangeKind
from daybreak_server.domain.sessions import NewSession, SessionEnd

SESSIONS = "daybreak.sessions"
"""The logger of these lines."""
_LOST = frozenset({"lease_lost", "left", "restarted"})
"""The reasons for which a session loses its group although the group has not released the session."""

_log = logging.getLogger(SESSIONS)
_own_log = logging.getLogger(__name__)


def log_session(change: SessionChange) -> None:
    """Log a change. Never raises: an error is logged, once for each type."""
    try:
        level = logging.WARNING if _is_warning(change) else logging.INFO
        if _log.isEnabledFor(level):
            _log.log(level, "session %s %s", change.session, change.kind.value, extra=_fields(change))
    except Exception as exc:
        _log_once(type(exc))  # type: ignore[arg-type]  # a class is hashable


def log_refused(new: NewSession, *, reason: str) -> None:
    """Log that a session was not opened.

    :param reason: ``limit`` or ``lag`` if the pool accepts no session now, ``tenant_limit`` if the tenant has too many.
    """
    log_session(
        SessionChange(
            session=new.id,
            kind=SessionChangeKind.REFUSED,
            tenant=new.tenant,
            trace_context=new.trace_context,
            reason=reason,
        )
    )


def _is_warning(change: SessionChange) -> bool:
    match change.kind:
        case SessionChangeKind.REFUSED:
            return True
        case SessionChangeKind.RELEASED:
            return change.reason in _LOST
        case SessionChangeKind.ENDED:
            return change.reason == SessionEnd.FAILED
        case _:
            return False


def _fields(change: SessionChange) -> dict[str, object]:
    context = change.trace_context
    fields: dict[str, object] = {
        "change": change.kind.value,
        "session": change.session,
        "pool": pool_of(change.session) or "",
        "attempt": change.attempt or None,
        "group": change.group,
        "tenant": change.tenant,
        "trace_id": context.trace_id if context is not None else "",
        "reason": change.reason,
        "error": change.error,
        "latency_multiplier": change.latency_multiplier,
    }
    return {name: value for name, value in fields.items() if value is not None and value != ""}


@functools.cache
def _log_once(_kind: type[Exception]) -> None:
    _own_log.exception("the line about a change of a session cannot be written")
