"""The spans of streaming sessions.

A session has one trace, whichever processes work on it:

* The gateway makes the span ``<method> <route>`` of the request or the WebSocket that opens the session. It stores the
  span's context with the session. All other spans of the session are children of this span, so the trace is connected
  even if a group is killed and cannot send its last span.
* Each group that claims the session makes two spans. ``wait <pool>`` is the time that the session waited for this
  group. ``serve <pool>`` is the time from the claim until the group no longer has the session. The events of ``serve``
  are the first text, the turns, and changes of the turns' length.
* The process that ends the session makes ``end <pool>``, which lasts no time.

Our own attributes begin with ``daybreak.``. Spans contain neither text of the speech nor messages of errors.
"""

from __future__ import annotations

import time

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.semconv.attributes import http_attributes as http
from opentelemetry.semconv.attributes import url_attributes as url
from opentelemetry.trace import NonRecordingSpan, SpanKind, Tracer

from daybreak_server.domain.ids import GroupId, pool_of
from daybreak_server.domain.session_changes import SessionChange
from daybreak_server.domain.sessions import SessionClaim, SessionEnd, SessionRecord
from daybreak_server.domain.tracing import TraceContext
from daybreak_server.observability.fallback import fall_back_to, nothing
from daybreak_server.observability.span_conventions import (
    ATTEMPT,
    FIRST_TURN,
    GROUP,
    LAST_TURN,
    LATENCY_MULTIPLIER,
    LOST_GROUP,
    LOST_REASON,
    OUTCOME,
    POOL,
    REPEATED,
    SESSION,
    TENANT,
    TURNS,
    span_context,
)
from daybreak_server.observability.span_steps import PhaseSteps
from daybreak_server.observability.spans import fail, trace_context

FIRST_TEXT, TURNS_ENDED, DEGRADED = "first_text", "turns", "degraded"
"""The events of ``serve``."""
TURNS_WIDTH = 16
"""How many turns an event ``turns`` covers at first. When a span would have more than ``span_steps.EVENTS_MAX`` such
events, they are joined in pairs, so that each event covers twice as many turns."""
DEGRADED_MAX = 32
"""The maximum number of ``degraded`` events in one span. More of them would make the SDK drop other events."""


class OpeningSpan:
    """Implements :class:`daybreak_server.ports.session_tracing.OpeningTrace`."""

    def __init__(
        self, tracer: Tracer, caller: TraceContext | None, *, method: str, route: str, scheme: str, path: str
    ) -> None:
        self._span = tracer.start_span(
            f"{method} {route}",
            _inside(caller) if caller is not None else Context(),
            SpanKind.SERVER,
            {
                http.HTTP_REQUEST_METHOD: method,
                http.HTTP_ROUTE: route,
                url.URL_SCHEME: scheme,
                url.URL_PATH: path,
            },
        )
        self.context: TraceContext | None = trace_context(self._span, caller)

    @fall_back_to(nothing)
    def opened(self, record: SessionRecord) -> None:
        """Add the session to the span."""
        new = record.session
        self._span.set_attributes({POOL: new.pool, TENANT: new.tenant, SESSION: new.id})
        if new.trace_context != self.context:
            self._span.set_attribute(REPEATED, True)
            if new.trace_context is not None:
                self._span.add_link(span_context(new.trace_context))

    @fall_back_to(nothing)
    def ended(self, *, status: int | None = None, error: str = "") -> None:
        """End the span."""
        if not self._span.is_recording():
            return
        if status is not None:
            self._span.set_attribute(http.HTTP_RESPONSE_STATUS_CODE, status)
        if error:
            self._span.set_attribute(OUTCOME, error)
            if status is None or status >= 500:
                fail(self._span, error)
        self._span.end()


class ClaimSpan:
    """The span ``serve <pool>``. Implements :class:`daybreak_server.ports.session_tracing.ClaimTrace`.

    Only the group's work thread uses this span.
    """

    def __init__(
        self, tracer: Tracer, claim: SessionClaim, context: TraceContext, group: GroupId, claimed_ns: int
    ) -> None:
        record = claim.record
        new = record.session
        self._turns = PhaseSteps(TURNS_ENDED, claimed_ns, claimed_ns, width=TURNS_WIDTH)
        self._degraded = 0
        self._span = tracer.start_span(
            f"serve {new.pool}",
            _inside(context),
            SpanKind.INTERNAL,
            {
                POOL: new.pool,
                TENANT: new.tenant,
                SESSION: new.id,
                GROUP: group,
                ATTEMPT: record.attempt,
                LATENCY_MULTIPLIER: record.latency_multiplier,
            },
            [],
            claimed_ns,
        )

    @fall_back_to(nothing)
    def first_text(self) -> None:
        """Add the event ``first_text``."""
        self._span.add_event(FIRST_TEXT)

    @fall_back_to(nothing)
    def turn_ended(self) -> None:
        """Count the turn. The events ``turns`` are added when the span ends."""
        number = self._turns.steps + 1
        self._turns.step(number, number, time.time_ns())

    @fall_back_to(nothing)
    def degraded(self, latency_multiplier: int) -> None:
        """Add the event ``degraded``."""
        self._degraded += 1
        if self._degraded <= DEGRADED_MAX:
            self._span.add_event(DEGRADED, {LATENCY_MULTIPLIER: latency_multiplier})

    @fall_back_to(nothing)
    def ended(self, reason: str, *, error: str = "") -> None:
        """End the span."""
        for event in self._turns.events:
            self._span.add_event(TURNS_ENDED, {FIRST_TURN: event.first, LAST_TURN: event.last}, event.at_ns)
        self._span.set_attributes({TURNS: self._turns.steps, OUTCOME: reason})
        if error:
            fail(self._span, error)
        self._span.end()


def record_wait(tracer: Tracer, claim: SessionClaim, context: TraceContext, claimed_ns: int) -> None:
    """Record how long the session has waited for a group: since it was opened, or since it lost its last group."""
    record = claim.record
    new = record.session
    attributes: dict[str, str | int] = {
        POOL: new.pool,
        TENANT: new.tenant,
        SESSION: new.id,
        ATTEMPT: record.attempt,
    }
    if record.lost_reason:
        attributes |= {LOST_GROUP: record.lost_group, LOST_REASON: record.lost_reason}
    since_ns = (record.waiting_since_ms or record.opened_ms) * 1_000_000
    tracer.start_span(
        f"wait {new.pool}",
        _inside(context),
        SpanKind.INTERNAL,
        attributes,
        start_time=min(since_ns, claimed_ns),  # the clocks of two machines may differ
    ).end(claimed_ns)


def record_end(tracer: Tracer, change: SessionChange, context: TraceContext) -> None:
    """Record that the session has ended, and why."""
    pool = pool_of(change.session) or ""
    now = time.time_ns()
    attributes: dict[str, str | int] = {
        POOL: pool,
        TENANT: change.tenant,
        SESSION: change.session,
        ATTEMPT: change.attempt,
        OUTCOME: change.reason,
    }
    span = tracer.start_span(f"end {pool}", _inside(context), SpanKind.INTERNAL, attributes, start_time=now)
    if change.reason == SessionEnd.FAILED:
        fail(span, change.error or SessionEnd.FAILED)
    span.end(now)


def _inside(context: TraceContext) -> Context:
    return trace.set_span_in_context(NonRecordingSpan(span_context(context)))
