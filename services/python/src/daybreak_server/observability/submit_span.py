"""The span ``send <pool>`` of a submit.

A busy gateway makes many of these spans. The tracer of OpenTelemetry's SDK takes six times as long as this module to
make one, because any thread may change the tracer's spans until they end. This module makes the span only when the
submit ends. All facts are known then, so the span never changes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.semconv._incubating.attributes import messaging_attributes as messaging
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from daybreak_server.domain.tasks import TaskRecord
from daybreak_server.domain.tracing import TraceContext
from daybreak_server.observability.fallback import fall_back_to, nothing
from daybreak_server.observability.span_conventions import REPEATED, TENANT, operation, span_context

_NO_STATUS = Status(StatusCode.UNSET)


@dataclass(frozen=True, slots=True)
class SpanSink:
    """The processor that gets the spans that this module makes, and what all these spans have in common."""

    processor: SpanProcessor
    resource: Resource
    scope: InstrumentationScope
    ids: IdGenerator = field(default_factory=RandomIdGenerator)


class SubmitSpan:
    """The span ``send <pool>``. A request that is refused before the store is asked has no such span."""

    def __init__(self, sink: SpanSink, caller: TraceContext | None) -> None:
        self._sink = sink
        self._began_ns = time.time_ns()
        self._parent = span_context(caller) if caller is not None else None
        self._span = SpanContext(
            self._parent.trace_id if self._parent is not None else sink.ids.generate_trace_id(),
            sink.ids.generate_span_id(),
            False,
            TraceFlags(TraceFlags.SAMPLED),
            self._parent.trace_state if self._parent is not None else None,
        )
        self.context: TraceContext | None = TraceContext(
            traceparent=f"00-{self._span.trace_id:032x}-{self._span.span_id:016x}-01",
            tracestate=caller.tracestate if caller is not None else "",
        )

    @fall_back_to(nothing)
    def stored(self, record: TaskRecord, *, repeated: bool) -> None:
        """End the span of a submit whose task is stored, by this request or, if ``repeated``, by an earlier one."""
        attributes: dict[str, str | bool] = {
            **operation(record.pool, "send"),
            messaging.MESSAGING_MESSAGE_ID: record.id,
            TENANT: record.tenant,
        }
        links: Sequence[Link] = ()
        if repeated:  # the task carries the context of the submit that made it
            attributes[REPEATED] = True
            if record.trace_context is not None:
                links = (Link(span_context(record.trace_context)),)
        self._end(record.pool, attributes, links=links)

    @fall_back_to(nothing)
    def refused(self, pool: str, *, error: str) -> None:
        """End the span of a submit that the store did not accept."""
        attributes: dict[str, str | bool] = {**operation(pool, "send"), ERROR_TYPE: error}
        self._end(pool, attributes, status=Status(StatusCode.ERROR))

    def _end(
        self,
        pool: str,
        attributes: Mapping[str, str | bool],
        *,
        links: Sequence[Link] = (),
        status: Status = _NO_STATUS,
    ) -> None:
        span = ReadableSpan(
            f"send {pool}",
            self._span,
            self._parent,
            self._sink.resource,
            attributes,
            links=links,
            kind=SpanKind.PRODUCER,
            status=status,
            start_time=self._began_ns,
            end_time=time.time_ns(),
            instrumentation_scope=self._sink.scope,
        )
        self._sink.processor.on_end(span)
