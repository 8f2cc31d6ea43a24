"""Reads the changes of state that a script made and that its caller cannot infer from the script's own reply.

The Lua function ``reply_of`` in :mod:`~daybreak_server.adapters.redis.scripts` adds these changes to the reply. For
tasks, they are retries, releases, cancels, failures, expiries, and tasks that became due or were deleted. A settle, a
tick, a claim, a cancel, a registration or a deletion may cause them. For streaming sessions, every change is added.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Sequence
from typing import Any

from daybreak_server.adapters.redis.codec import text, trace_of
from daybreak_server.domain.changes import Change, OnChange
from daybreak_server.domain.ids import TaskId
from daybreak_server.domain.session_changes import SessionChange, SessionChangeKind
from daybreak_server.domain.sessions import SessionId
from daybreak_server.domain.task_changes import ChangeKind, TaskChange

MARK = "changes"
"""The first element of a reply with changes. No script's own reply begins with it."""
_MARK = MARK.encode()
_OF_SESSION = "session_"
"""The kind of a session's change begins with this."""
_log = logging.getLogger(__name__)


def without_changes(reply: Any, on_change: OnChange) -> Any:
    """The script's own reply. Its changes go to ``on_change``.

    An error of ``on_change`` must not reach the caller: Redis has made the changes, and a caller that saw an error
    would treat a settled task as broken. So the error is logged, once for each type of error.
    """
    if not isinstance(reply, list) or not reply or reply[0] != _MARK:
        return reply
    for change in reply[2]:
        try:
            on_change(_change(change))
        except Exception as exc:
            _log_once(type(exc))  # type: ignore[arg-type]  # a class is hashable
    return reply[1]


@functools.cache
def _log_once(_kind: type[Exception]) -> None:
    _log.exception("a change of a task or a session cannot be reported; the change itself is stored")


def ignore(_change: Change) -> None:
    """Do nothing."""


def _change(item: Sequence[Any]) -> Change:
    subject, kind, attempt, group, tenant, trace, data = (text(part) for part in item)
    facts = json.loads(data)
    if kind.startswith(_OF_SESSION):
        return SessionChange(
            session=SessionId(subject),
            kind=SessionChangeKind(kind.removeprefix(_OF_SESSION)),
            attempt=int(attempt),
            group=group,
            tenant=tenant,
            trace_context=trace_of(trace),
            reason=facts.get("reason", ""),
            error=facts.get("error", {}).get("code", ""),
            latency_multiplier=facts.get("latency_multiplier"),
        )
    error = facts.get("error", {})
    is_release = kind == "retrying" and facts["reason"] == "released"
    return TaskChange(
        task=TaskId(subject),
        kind=ChangeKind.RELEASED if is_release else ChangeKind(kind),
        attempt=int(attempt),
        group=group,
        tenant=tenant,
        trace_id=trace,
        reason="" if is_release else str(error.get("code") or facts.get("reason", "")),
        message=str(error.get("message") or facts.get("message", "")),
        strikes=facts.get("strikes"),
        delay_s=facts.get("delay_s"),
    )
