"""The spans of one request to a serving pool or a model.

``<method> <route>`` is the request, from its arrival to the last byte of its answer, with the event ``first_byte``.
Its child spans follow each other: ``wait <pool>`` for each time that the request waits in line, and ``<method>`` for
each try. A try ends with the answer or with the reason why there is no answer. The group or the worker gets the
context of the try, so its own spans belong to the trace. For a request to a model, the ``pool`` is the model's name.

Names and attributes follow the semantic conventions for HTTP; Daybreak's attributes begin with ``daybreak.``. No span
contains a query, a header or a part of a body.
"""

from __future__ import annotations

import time
from urllib.parse import urlsplit

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.semconv.attributes import (
    http_attributes as http,
)
from opentelemetry.semconv.attributes import (
    server_attributes as server,
)
from opentelemetry.semconv.attributes import (
    url_attributes as url,
)
from opentelemetry.trace import NonRecordingSpan, Span, SpanKind, Tracer

from daybreak_server.domain.tracing import TraceContext
from daybreak_server.observability.fallback import fall_back_to, nothing
from daybreak_server.observability.span_conventions import GROUP, OUTCOME, POOL, TENANT, span_context
from daybreak_server.observability.spans import fail, trace_context

FIRST_BYTE = "first_byte"
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT"})
_OTHER = "_OTHER"
_NO_FAILURES = frozenset({"answered", "client_gone"})


class RequestSpans:
    """Implements :class:`daybreak_server.ports.tracing.RequestTrace`."""

    def __init__(
        self,
        tracer: Tracer,
        caller: TraceContext | None,
        *,
        method: str,
        route: str,
        scheme: str,
        path: str,
        pool: str,
        tenant: str,
    ) -> None:
        self._tracer = tracer
        self._pool = pool
        self._method = method if method in _METHODS else _OTHER
        self._name = self._method if self._method != _OTHER else "HTTP"
        parent = trace.set_span_in_context(NonRecordingSpan(span_context(caller))) if caller else Context()
        self._span = tracer.start_span(
            f"{self._name} {route}",
            parent,
            SpanKind.SERVER,
            {
                http.HTTP_REQUEST_METHOD: self._method,
                http.HTTP_ROUTE: route,
                url.URL_SCHEME: scheme,
                url.URL_PATH: path,
                POOL: pool,
                TENANT: tenant,
            },
        )
        self.context: TraceContext | None = trace_context(self._span, caller)
        self._inside = trace.set_span_in_context(self._span)
        self._try: Span | None = None
        self._tries = 0

    @fall_back_to(nothing)
    def waited(self, *, began_ns: int, granted: bool) -> None:
        """Record the time that the request waited in line."""
        span = self._tracer.start_span(
            f"wait {self._pool}", self._inside, SpanKind.INTERNAL, {POOL: self._pool}, start_time=began_ns
        )
        if not granted:
            span.set_attribute(OUTCOME, "no_group")
        span.end()

    @fall_back_to(lambda self, *_args, **_kwargs: self.context)
    def sent(self, group: str, endpoint: str) -> TraceContext | None:
        """Begin the span of a try. Returns the context that the group or the worker gets."""
        address = urlsplit(endpoint)
        attributes: dict[str, str | int] = {
            http.HTTP_REQUEST_METHOD: self._method,
            server.SERVER_ADDRESS: address.hostname or "",
            server.SERVER_PORT: address.port or 80,
            url.URL_FULL: endpoint,
            GROUP: group,
        }
        if self._tries:
            attributes[http.HTTP_REQUEST_RESEND_COUNT] = self._tries
        self._tries += 1
        self._try = self._tracer.start_span(self._name, self._inside, SpanKind.CLIENT, attributes)
        return trace_context(self._try, self.context)

    @fall_back_to(nothing)
    def not_answered(self, reason: str) -> None:
        """End the span of a try that got no answer."""
        if self._try is not None:
            fail(self._try, reason)
            self._try.end()
            self._try = None

    @fall_back_to(nothing)
    def first_byte(self, status: int) -> None:
        """Note that the answer has begun."""
        self._span.add_event(FIRST_BYTE)
        self._span.set_attribute(http.HTTP_RESPONSE_STATUS_CODE, status)
        if self._try is not None:
            self._try.set_attribute(http.HTTP_RESPONSE_STATUS_CODE, status)
            if status >= 400:
                fail(self._try, str(status))
        if status >= 500:
            fail(self._span, str(status))

    @fall_back_to(nothing)
    def ended(self, outcome: str, *, status: int | None = None) -> None:
        """End the span of the request, and the span of the try that answered the request."""
        self._span.set_attribute(OUTCOME, outcome)
        if status is not None:
            self._span.set_attribute(http.HTTP_RESPONSE_STATUS_CODE, status)
        failed = outcome not in _NO_FAILURES
        if failed and (status is None or status >= 500):
            fail(self._span, outcome)
        if self._try is not None:
            if failed:
                fail(self._try, outcome)
            self._try.end()
            self._try = None
        self._span.end(time.time_ns())
