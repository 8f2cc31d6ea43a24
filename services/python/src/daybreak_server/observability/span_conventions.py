"""The attributes of spans.

Attributes about tasks follow OpenTelemetry's semantic conventions for messaging (:data:`SCHEMA`).
Daybreak's own attributes begin with ``daybreak.``.
"""

from __future__ import annotations

from opentelemetry.semconv._incubating.attributes import messaging_attributes as messaging
from opentelemetry.semconv.schemas import Schemas
from opentelemetry.trace import SpanContext, TraceFlags, TraceState

from daybreak_server.domain.tracing import TraceContext

SYSTEM = "daybreak"
SCHEMA = Schemas.V1_44_0.value
TENANT, GROUP, RANKS, ATTEMPT = "daybreak.tenant", "daybreak.group", "daybreak.ranks", "daybreak.attempt"
OUTCOME, STATE, REPEATED = "daybreak.outcome", "daybreak.state", "daybreak.repeated"
RESUMED = "daybreak.resumed_from_step"
FIRST_STEP, LAST_STEP, STEPS = "daybreak.first_step", "daybreak.last_step", "daybreak.steps"
POOL, SESSION = "daybreak.pool", "daybreak.session"
FIRST_TURN, LAST_TURN, TURNS = "daybreak.first_turn", "daybreak.last_turn", "daybreak.turns"
LATENCY_MULTIPLIER = "daybreak.latency_multiplier"
LOST_GROUP, LOST_REASON = "daybreak.lost_group", "daybreak.lost_reason"
LEASE_LOST = "lease_lost"
"""The ``error.type`` of an attempt whose lease was lost."""


def destination(pool: str) -> dict[str, str]:
    """The attributes that every span about a pool has."""
    return {messaging.MESSAGING_SYSTEM: SYSTEM, messaging.MESSAGING_DESTINATION_NAME: pool}


def operation(pool: str, name: str) -> dict[str, str]:
    """The attributes of an operation on a pool."""
    return destination(pool) | {
        messaging.MESSAGING_OPERATION_NAME: name,
        messaging.MESSAGING_OPERATION_TYPE: name,
    }


def span_context(context: TraceContext) -> SpanContext:
    """The trace context of a task or a request, as OpenTelemetry's own type."""
    _, trace_id, span_id, flags = context.traceparent.split("-")
    state = TraceState.from_header([context.tracestate]) if context.tracestate else None
    return SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16) & 1), state)
