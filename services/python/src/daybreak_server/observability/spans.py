"""What the spans of tasks, requests and sessions share: the mark of a failed span, and a span's context for headers."""

from __future__ import annotations

from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import Span, Status, StatusCode

from daybreak_server.domain.tracing import TraceContext


def fail(span: Span, error: str) -> None:
    """Mark the span as failed. ``error``: a code, never a message."""
    span.set_attribute(ERROR_TYPE, error)
    span.set_status(Status(StatusCode.ERROR))


def trace_context(span: Span, caller: TraceContext | None) -> TraceContext:
    """The context of the span, as headers carry it, with the caller's ``tracestate``."""
    found = span.get_span_context()
    parent = f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags & 1:02x}"
    return TraceContext(traceparent=parent, tracestate=caller.tracestate if caller is not None else "")
