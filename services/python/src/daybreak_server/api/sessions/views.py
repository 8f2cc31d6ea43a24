"""Sessions and their events as Daybreak's own API shows them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from daybreak.wire import Session, SessionError, SessionEvent, SessionEventType, SessionLinks, SessionState
from daybreak_server.api import path_prefix
from daybreak_server.domain import sessions as domain
from daybreak_server.domain.sessions import SAMPLE_RATE, SessionRecord


def milliseconds(samples: int) -> int:
    """The duration of this number of samples of a session's audio, in milliseconds."""
    return samples * 1000 // SAMPLE_RATE


def session(record: SessionRecord, *, trusted: bool = False) -> Session:
    """The session as clients see it. Only a ``trusted`` client sees which group owns the session."""
    new = record.session
    path = f"{path_prefix.current()}/v1/sessions/{new.id}"
    return Session(
        id=new.id,
        pool=new.pool,
        state=SessionState(record.state.value),
        source=new.source,
        target=new.target,
        client=new.client,
        latency_multiplier=record.latency_multiplier,
        attempt=record.attempt,
        opened_at=_time(record.opened_ms),
        touched_at=_time(record.touched_ms) if record.touched_ms else None,
        received_ms=milliseconds(record.received),
        consumed_ms=milliseconds(record.consumed),
        input_ended=record.input_ended,
        last_event=record.last_event,
        end=record.end.value if record.end else None,
        error=SessionError(code=record.error.reason, message=record.error.message) if record.error else None,
        group=record.group if trusted else None,
        traceparent=new.trace_context.traceparent if new.trace_context else None,
        links=SessionLinks(self=path, stream=f"{path}/stream"),
    )


def event(session_id: domain.SessionId, found: domain.SessionEvent) -> dict[str, Any]:
    """The event as clients receive it."""
    return SessionEvent(
        id=found.id,
        session=session_id,
        type=SessionEventType(found.type.value),
        at=_time(found.at_ms),
        data=dict(found.data),
    ).to_json()


def _time(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms / 1000, UTC)
