"""What all spans have in common: trace contexts, failures, and that a bug here never harms the work."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import Span, SpanContext, Status, StatusCode, TraceFlags, TraceState

from daybreak_server.domain.tracing import TraceContext

_log = logging.getLogger(__name__)
_P = ParamSpec("_P")
_R = TypeVar("_R")
_warned = threading.Event()


def harmless(default: Callable[..., Any]) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """If the method raises, return ``default`` of the same arguments. The first error of the process is logged."""

    def decorate(method: Callable[_P, _R]) -> Callable[_P, _R]:
        @functools.wraps(method)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            try:
                return method(*args, **kwargs)
            except Exception:
                if not _warned.is_set():
                    _warned.set()
                    _log.warning("a trace is incomplete, because of a bug in the tracing", exc_info=True)
                return cast("_R", default(*args, **kwargs))

        return call

    return decorate


def nothing(*_args: object, **_kwargs: object) -> None:
    """The default of a method without a result."""


def fail(span: Span, error: str) -> None:
    """Mark the span as failed. ``error``: a code, never a message."""
    span.set_attribute(ERROR_TYPE, error)
    span.set_status(Status(StatusCode.ERROR))


def trace_context(span: Span, caller: TraceContext | None) -> TraceContext:
    """The context of the span, as headers carry it."""
    found = span.get_span_context()
    parent = f"00-{found.trace_id:032x}-{found.span_id:016x}-{found.trace_flags & 1:02x}"
    return TraceContext(traceparent=parent, tracestate=caller.tracestate if caller is not None else "")


def span_context(context: TraceContext) -> SpanContext:
    """The span that the headers name."""
    _, trace_id, span_id, flags = context.traceparent.split("-")
    state = TraceState.from_header([context.tracestate]) if context.tracestate else None
    return SpanContext(int(trace_id, 16), int(span_id, 16), True, TraceFlags(int(flags, 16) & 1), state)
