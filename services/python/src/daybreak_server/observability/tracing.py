"""Traces with OpenTelemetry. Only this module and the modules of spans import OpenTelemetry. Processes import these
modules only if tracing is on.

A task has one trace, whichever processes work on it:

* The gateway makes the span ``send <pool>`` and stores its context with the task. If the request has a
  ``traceparent``, the span is a child of the caller's span. The gateway decides whether the trace is sampled: it keeps
  the caller's decision; without a caller's decision, ``sampling`` decides. A task that is not sampled gets no new
  context, because making and storing a context would cost more than everything else that tracing adds to a submit.
* For each attempt, the leader that claims the task makes ``queue`` (the wait before the claim, with the phases of the
  wake), ``receive`` and ``process``, as children of ``send``. Below ``process`` are the phases of the work, with their
  steps as events, and ``settle``. An attempt on another group finds the same context in its claim, so it continues the
  same trace.

A request to a serving pool or a model has a trace too (``request_spans``), and so has a streaming session
(``session_spans``).

The names and attributes of a task's spans follow the semantic conventions for messaging (``span_conventions``). No span
has a prompt, an error's message, or anything else from a task's input or output.

Every public method catches its own errors: a bug here costs spans, not tasks.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.semconv._incubating.attributes import messaging_attributes as messaging
from opentelemetry.semconv.attributes import service_attributes as service
from opentelemetry.trace import Link, NonRecordingSpan, SpanKind, Tracer

from daybreak_server.domain.ids import GroupId, made_at_ms, pool_of
from daybreak_server.domain.pools import WAKE_PHASES, GroupRecord
from daybreak_server.domain.session_changes import SessionChange
from daybreak_server.domain.sessions import SessionClaim
from daybreak_server.domain.tasks import Claim, Failed, Outcome, Released, State, Stopped
from daybreak_server.domain.tracing import TraceContext
from daybreak_server.observability.fallback import fall_back_to, nothing
from daybreak_server.observability.request_spans import RequestSpans
from daybreak_server.observability.sampling import Sampler
from daybreak_server.observability.session_spans import ClaimSpan, OpeningSpan, record_end, record_wait
from daybreak_server.observability.span_conventions import (
    ATTEMPT,
    FIRST_STEP,
    GROUP,
    LAST_STEP,
    LEASE_LOST,
    OUTCOME,
    RANKS,
    RESUMED,
    SCHEMA,
    STATE,
    STEPS,
    TENANT,
    destination,
    operation,
    span_context,
)
from daybreak_server.observability.span_export import DELAY_S, GATEWAY_DELAY_S, span_processor, within
from daybreak_server.observability.span_steps import Phases, PhaseSteps
from daybreak_server.observability.spans import fail
from daybreak_server.observability.submit_span import SpanSink, SubmitSpan
from daybreak_server.ports.session_tracing import (
    NO_CLAIM_TRACE,
    ClaimTrace,
    OpeningTrace,
    UnrecordedOpening,
)
from daybreak_server.ports.tracing import (
    CLOSE_S,
    NO_ATTEMPT_TRACE,
    UNRECORDED_SUBMIT,
    AttemptTrace,
    RequestTrace,
    SubmitTrace,
    UnrecordedRequest,
    UnrecordedSubmit,
)
from daybreak_server.settings.tree import TracingSettings


def open_tracing(
    settings: TracingSettings, *, service_name: str, version: str, is_gateway: bool = False
) -> OpenTelemetryTracing:
    """Record the traces of this process, and send them to the collector of the settings."""
    delay_s = GATEWAY_DELAY_S if is_gateway else DELAY_S
    processor = span_processor(settings.endpoint, headers_file=settings.headers_file, delay_s=delay_s)
    return OpenTelemetryTracing(
        processor,
        Sampler(settings.sample_ratio, settings.max_per_s),
        service_name=service_name,
        version=version,
    )


class OpenTelemetryTracing:
    """Records traces with a tracer provider of its own; the global one may belong to Ray."""

    def __init__(
        self, processor: SpanProcessor, sampler: Sampler, *, service_name: str, version: str
    ) -> None:
        resource = Resource.create(
            {
                service.SERVICE_NAME: service_name,
                service.SERVICE_VERSION: version,
                service.SERVICE_INSTANCE_ID: str(uuid.uuid4()),
            },
            schema_url=SCHEMA,
        )
        # This class decides about sampling before it begins a span. Beginning a span only to drop it would cost more.
        self._provider = TracerProvider(sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer("daybreak", version, schema_url=SCHEMA)
        self._sink = SpanSink(processor, resource, InstrumentationScope("daybreak", version, SCHEMA))
        self._draw = sampler.draw

    def submit(self, caller: TraceContext | None) -> SubmitTrace:
        """Begin the trace of a submit, and decide whether it is sampled."""
        if caller is None:
            return self._begin(None) if self._draw() else UNRECORDED_SUBMIT
        return self._begin(caller) if caller.sampled else UnrecordedSubmit(caller)

    @fall_back_to(lambda _self, caller: UnrecordedSubmit(caller))
    def _begin(self, caller: TraceContext | None) -> SubmitTrace:
        return SubmitSpan(self._sink, caller)

    @fall_back_to(lambda _self, caller, **_kwargs: UnrecordedRequest(caller))
    def request(
        self,
        caller: TraceContext | None,
        *,
        method: str,
        route: str,
        scheme: str,
        path: str,
        pool: str,
        tenant: str,
    ) -> RequestTrace:
        """Begin the trace of a request to a serving pool or a model, and decide whether it is sampled."""
        if not (caller.sampled if caller is not None else self._draw()):
            return UnrecordedRequest(caller)
        return RequestSpans(
            self._tracer,
            caller,
            method=method,
            route=route,
            scheme=scheme,
            path=path,
            pool=pool,
            tenant=tenant,
        )

    @fall_back_to(lambda *_args, **_kwargs: NO_ATTEMPT_TRACE)
    def attempt(
        self,
        claim: Claim,
        group: GroupRecord,
        *,
        claim_sent_ns: int,
        ready_ns: int,
        wake: Mapping[str, float],
    ) -> AttemptTrace:
        """Begin the trace of an attempt, if its task's trace is sampled."""
        context = claim.trace_context
        if context is None or not context.sampled:
            return NO_ATTEMPT_TRACE
        spans = AttemptSpans(self._tracer, claim, context, group)
        spans.record_wait(claim_sent_ns=claim_sent_ns, ready_ns=ready_ns, wake=wake)
        return spans

    @fall_back_to(lambda _self, caller, **_kwargs: UnrecordedOpening(caller))
    def opening(
        self, caller: TraceContext | None, *, method: str, route: str, scheme: str, path: str
    ) -> OpeningTrace:
        """Begin the trace of a request that may open sessions, and decide whether it is sampled."""
        if not (caller.sampled if caller is not None else self._draw()):
            return UnrecordedOpening(caller)
        return OpeningSpan(self._tracer, caller, method=method, route=route, scheme=scheme, path=path)

    @fall_back_to(lambda *_args, **_kwargs: NO_CLAIM_TRACE)
    def claimed(self, claim: SessionClaim, group: GroupId) -> ClaimTrace:
        """Continue the trace of a session that a group has claimed, if this trace is sampled."""
        context = claim.record.session.trace_context
        if context is None or not context.sampled:
            return NO_CLAIM_TRACE
        now = time.time_ns()
        record_wait(self._tracer, claim, context, now)
        return ClaimSpan(self._tracer, claim, context, group, now)

    @fall_back_to(nothing)
    def session_ended(self, change: SessionChange) -> None:
        """Record the end of a session, if its trace is sampled."""
        context = change.trace_context
        if context is not None and context.sampled:
            record_end(self._tracer, change, context)

    @fall_back_to(nothing)
    def flush(self, timeout_s: float = CLOSE_S) -> None:
        """Send the spans that have been recorded."""
        within(timeout_s, self._provider.force_flush)

    @fall_back_to(nothing)
    def close(self, timeout_s: float = CLOSE_S) -> None:
        """Send the spans that have been recorded, and stop."""
        within(timeout_s, self._provider.shutdown)


class AttemptSpans:
    """The spans of an attempt. A lock guards them, because the thread that finds the group broken may end them too."""

    def __init__(self, tracer: Tracer, claim: Claim, context: TraceContext, group: GroupRecord) -> None:
        self._tracer = tracer
        self._task = claim.lease.task
        self._pool = pool_of(self._task) or ""
        self._sent = span_context(context)
        self._parent = trace.set_span_in_context(NonRecordingSpan(self._sent))
        self._attempt = claim.attempt
        self._queued_ms = claim.queued_ms if claim.queued_ms is not None else made_at_ms(self._task)
        self._claimed_ns = time.time_ns()
        self._lock = threading.Lock()
        self._phases: Phases | None = Phases(self._claimed_ns)
        attributes: dict[str, str | int] = {
            **self._message("process"),
            TENANT: claim.tenant,
            GROUP: group.id,
            RANKS: group.ranks,
            ATTEMPT: claim.attempt,
        }
        if claim.checkpoint is not None:
            attributes[RESUMED] = claim.checkpoint.step
        self._span = tracer.start_span(
            f"process {self._pool}",
            self._parent,
            SpanKind.CONSUMER,
            attributes,
            [Link(self._sent)],
            self._claimed_ns,
        )
        self._inside = trace.set_span_in_context(self._span)

    def record_wait(self, *, claim_sent_ns: int, ready_ns: int, wake: Mapping[str, float]) -> None:
        """Record the time before the claim: the wait in the queue, the wake, and the call of the claim itself."""
        queued_ns = min(self._queued_ms * 1_000_000, self._claimed_ns)  # clocks of two machines differ
        queue = self._tracer.start_span(
            f"queue {self._pool}",
            self._parent,
            SpanKind.INTERNAL,
            destination(self._pool) | {messaging.MESSAGING_MESSAGE_ID: self._task, ATTEMPT: self._attempt},
            start_time=queued_ns,
        )
        if ready_ns > queued_ns:
            self._record_wake(trace.set_span_in_context(queue), ready_ns, wake)
        queue.end(self._claimed_ns)
        self._tracer.start_span(
            f"receive {self._pool}",
            self._parent,
            SpanKind.CLIENT,
            self._message("receive"),
            [Link(self._sent)],
            min(max(claim_sent_ns, queued_ns), self._claimed_ns),
        ).end(self._claimed_ns)

    def _record_wake(self, parent: Context, ready_ns: int, wake: Mapping[str, float]) -> None:
        end = ready_ns
        for phase in reversed(WAKE_PHASES):
            if (seconds := wake.get(phase)) is not None:  # 0.0 if it took less than half a millisecond
                begin = end - round(seconds * 1e9)
                self._tracer.start_span(f"wake {phase}", parent, SpanKind.INTERNAL, start_time=begin).end(end)
                end = begin

    @fall_back_to(nothing)
    def phase(self, phase: str) -> None:
        """Enter a phase."""
        with self._lock:
            if self._phases is not None:
                self._record(self._phases.enter(phase, time.time_ns()))

    @fall_back_to(nothing)
    def step(self, phase: str, step: int, steps: int) -> None:
        """Record a step that has ended."""
        with self._lock:
            if self._phases is not None:
                self._record(self._phases.step(phase, step, steps, time.time_ns()))

    @fall_back_to(nothing)
    def ended(self, outcome: Outcome | None) -> None:
        """End the span of the attempt."""
        with self._lock:
            if self._phases is None:
                return
            now = time.time_ns()
            self._record(self._phases.end(now))
            self._phases = None
            match outcome:
                case None:
                    fail(self._span, LEASE_LOST)
                case Failed(code=code, reason=reason):
                    fail(self._span, code)
                    self._span.set_attribute(OUTCOME, reason)
                case Released():
                    self._span.set_attribute(OUTCOME, "released")
                case Stopped():
                    self._span.set_attribute(OUTCOME, "stopped")
                case _:
                    self._span.set_attribute(OUTCOME, "finished")
            self._span.end(now)

    @fall_back_to(nothing)
    def settled(self, state: State | None, *, began_ns: int) -> None:
        """Record the call that settled the attempt."""
        span = self._tracer.start_span(
            f"settle {self._pool}",
            self._inside,
            SpanKind.CLIENT,
            self._message("settle"),
            [Link(self._sent)],
            began_ns,
        )
        if state is None:
            fail(span, LEASE_LOST)
        else:
            span.set_attribute(STATE, state.value)
        span.end()

    def _record(self, phase: PhaseSteps | None) -> None:
        """Record a phase that has ended."""
        if phase is None:
            return
        span = self._tracer.start_span(phase.name, self._inside, SpanKind.INTERNAL, start_time=phase.start_ns)
        if phase.steps:
            span.set_attribute(STEPS, phase.steps)
        for event in phase.events:
            span.add_event("step", {FIRST_STEP: event.first, LAST_STEP: event.last}, event.at_ns)
        span.end(phase.end_ns)

    def _message(self, name: str) -> dict[str, str]:
        return operation(self._pool, name) | {messaging.MESSAGING_MESSAGE_ID: self._task}
