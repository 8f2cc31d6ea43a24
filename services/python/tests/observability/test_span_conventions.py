"""Spans follow the installed version of OpenTelemetry's semantic conventions for messaging and HTTP."""

from __future__ import annotations

import ast
import pkgutil
import time
from collections.abc import Iterator
from pathlib import Path

import opentelemetry.semconv._incubating.attributes as incubating
import opentelemetry.semconv.attributes as stable
import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes.http_attributes import HttpRequestMethodValues
from opentelemetry.semconv._incubating.attributes.messaging_attributes import MessagingOperationTypeValues
from opentelemetry.trace import SpanKind

from daybreak_server.domain.ids import AttemptToken, GroupId, new_task_id, ulid
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.session_changes import SessionChange, SessionChangeKind
from daybreak_server.domain.sessions import (
    NewSession,
    SessionClaim,
    SessionId,
    SessionLease,
    SessionRecord,
    SessionState,
)
from daybreak_server.domain.tasks import (
    CheckpointRef,
    Claim,
    Failed,
    Finished,
    Lease,
    Outcome,
    Priority,
    Released,
    State,
    Stopped,
    TaskRecord,
)
from daybreak_server.domain.tracing import TraceContext
from daybreak_server.observability import span_steps
from daybreak_server.observability.router_metrics import RETRY_REASONS
from daybreak_server.observability.sampling import Sampler
from daybreak_server.observability.tracing import OpenTelemetryTracing

ROUTE = "/v1/pools/{name}/serve/{path}"
TURNS = 5000
"""How many turns a session has in about an hour and a half."""
GROUP = GroupRecord(id=GroupId("g-1"), state=GroupState.BUSY, ranks=2)
OUTCOMES: tuple[Outcome | None, ...] = (
    Finished(artifacts=()),
    Failed(code="oops", message="the-secret-prompt"),
    Released(),
    Stopped(),
    None,
)
KINDS = {
    "send": SpanKind.PRODUCER,
    "receive": SpanKind.CLIENT,
    "process": SpanKind.CONSUMER,
    "settle": SpanKind.CLIENT,
}


def _registry() -> Iterator[tuple[str, bool]]:
    """Each attribute of OpenTelemetry's registry, and whether it is deprecated.

    The stable attributes come last, so in a dict they override incubating ones of the same name.
    """
    for package in (incubating, stable):
        for module in pkgutil.iter_modules(package.__path__):
            body = ast.parse(Path(package.__path__[0], f"{module.name}.py").read_text()).body
            for node, after in zip(body, [*body[1:], None], strict=True):
                if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Constant):
                    doc = after.value.value if isinstance(after, ast.Expr) else ""  # type: ignore[attr-defined]
                    yield str(node.value.value), "Deprecated" in doc


def _record() -> TaskRecord:
    return TaskRecord(
        id=new_task_id("video"),
        pool="video",
        tenant="default",
        state=State.QUEUED,
        priority=Priority.NORMAL,
        input_json="{}",
        metadata={},
    )


def record_session(tracing: OpenTelemetryTracing, context: TraceContext) -> None:
    """Record every kind of span of streaming sessions.

    One request opens a session, a second one repeats the first, and a third one fails. The session has two attempts;
    the second follows the loss of a group. The end is recorded twice, once without an error and once with an error.
    """
    opening = tracing.opening(
        context, method="POST", route="/v1/sessions", scheme="http", path="/v1/sessions"
    )
    new = NewSession(
        id=SessionId(f"speech_{ulid()}"),
        pool="speech",
        tenant="default",
        source="en",
        target="de",
        client="the-secret-prompt",
        options={"hint": "the-secret-prompt"},
        trace_context=opening.context,
    )
    opening.opened(SessionRecord(session=new, state=SessionState.WAITING))
    opening.ended(status=201)
    for route, error, status in (("/v1/sessions", "", 201), ("/init", "store_unavailable", 503)):
        again = tracing.opening(None, method="POST", route=route, scheme="http", path=route)
        if not error:
            again.opened(SessionRecord(session=new, state=SessionState.WAITING))
        again.ended(status=status, error=error)
    for attempt, (reason, error) in enumerate(
        (("lease_lost", "lease_lost"), ("failed", "session_failed")), start=1
    ):
        record = SessionRecord(
            session=new,
            state=SessionState.ACTIVE,
            attempt=attempt,
            opened_ms=time.time_ns() // 10**6 - 10,
            lost_group="g-0" if attempt > 1 else "",
            lost_reason="lease_lost" if attempt > 1 else "",
        )
        lease = SessionLease(session=new.id, token=AttemptToken(f"{attempt}.x"))
        claim = SessionClaim(
            lease=lease, record=record, turns=(), audio_start=0, audio=b"", segment_text="the-secret-prompt"
        )
        claimed = tracing.claimed(claim, GROUP.id)
        claimed.first_text()
        for _ in range(TURNS):
            claimed.turn_ended()
        for multiplier in range(200):
            claimed.degraded(1 + multiplier % 2)
        claimed.ended(reason, error=error)
    for reason, code in (("finished", ""), ("failed", "session_failed")):
        tracing.session_ended(
            SessionChange(
                session=new.id,
                kind=SessionChangeKind.ENDED,
                attempt=2,
                tenant="default",
                trace_context=opening.context,
                reason=reason,
                error=code,
            )
        )


@pytest.fixture
def spans() -> list[ReadableSpan]:
    """Every kind of span: of tasks with each outcome, of requests, and of a streaming session."""
    exporter = InMemorySpanExporter()
    tracing = OpenTelemetryTracing(
        SimpleSpanProcessor(exporter), Sampler(1.0, 1e6), service_name="s", version="1"
    )
    tracing.submit(None).refused("video", error="queue_full")
    context: TraceContext | None = None
    for repeated in (False, True):
        submitted, record = tracing.submit(context), _record()
        submitted.stored(record, repeated=repeated)
        context = submitted.context
    assert context is not None
    for number, outcome in enumerate(OUTCOMES, start=1):
        lease = Lease(task=record.id, token=AttemptToken(f"{number}.x"), group=GROUP.id, lease_s=15)
        claim = Claim(
            lease=lease,
            attempt=number,
            tenant="default",
            input_json='"the-secret-prompt"',
            trace_context=context,
            checkpoint=CheckpointRef(key="k", step=3) if number > 1 else None,
        )
        now = time.time_ns()
        attempt = tracing.attempt(claim, GROUP, claim_sent_ns=now, ready_ns=now + 10**9, wake={"model": 2.0})
        for step in range(500):
            attempt.step("denoise", step + 1, 500)
        attempt.phase("upload")
        attempt.ended(outcome)
        attempt.settled(None if outcome is None else State.SUCCEEDED, began_ns=now)
    for method, path in (("POST", "/v1/pools/chat/serve/a"), ("BREW", "/v1/pools/chat/serve/pot")):
        request = tracing.request(
            None, method=method, route=ROUTE, scheme="http", path=path, pool="chat", tenant="default"
        )
        request.waited(began_ns=time.time_ns() - 10**9, granted=True)
        for reason in RETRY_REASONS:
            request.sent("g-1", "http://10.0.0.1:20100")
            request.not_answered(reason)
        request.sent("g-2", "http://10.0.0.2:20100")
        request.first_byte(200)
        request.ended("answered" if method == "POST" else "cut_off")
    record_session(tracing, context)
    refused = tracing.request(
        context, method="GET", route=ROUTE, scheme="https", path="/p", pool="chat", tenant="default"
    )
    refused.waited(began_ns=time.time_ns(), granted=False)
    refused.ended("not_ready", status=503)
    tracing.close(5)
    return list(exporter.get_finished_spans())


def test_every_attribute_is_in_the_registry_or_our_own(spans: list[ReadableSpan]) -> None:
    registry = dict(_registry())
    assert registry["messaging.operation"] is True, "the registry marks this attribute as deprecated"
    used = {name for span in spans for name in span.attributes or {}}
    used |= {name for span in spans for event in span.events for name in event.attributes or {}}
    used |= set(spans[0].resource.attributes)
    own = {name for name in used if name.startswith("daybreak.")}
    assert used - own, "some attributes are the registry's"
    assert {name for name in used - own if registry.get(name, True)} == set()
    assert not own & set(registry)


def test_messaging_spans_have_the_names_kinds_and_attributes_of_the_conventions(
    spans: list[ReadableSpan],
) -> None:
    operations = {value.value for value in MessagingOperationTypeValues}
    seen = set()
    for span in spans:
        attributes = dict(span.attributes or {})
        operation = attributes.get("messaging.operation.name")
        if "http.request.method" in attributes:
            continue
        if operation is None:
            assert span.kind is SpanKind.INTERNAL
            continue
        seen.add(operation)
        assert attributes["messaging.operation.type"] == operation
        assert operation in operations
        assert span.name == f"{operation} {attributes['messaging.destination.name']}"
        assert span.kind is KINDS[str(operation)]
        assert attributes["messaging.system"] == "daybreak"
        assert ("error.type" in attributes) == (not span.status.is_unset)
        assert "messaging.message.id" in attributes or "error.type" in attributes
    assert seen == set(KINDS)


def test_requests_and_tries_are_named_as_the_conventions_for_http_ask(spans: list[ReadableSpan]) -> None:
    """The name of a server span is the method and the route. The name of a client span is only the method; the
    target is in its attributes. So no name of a span contains a path that a client chose."""
    methods = {value.value for value in HttpRequestMethodValues}
    of_http = [span for span in spans if "http.request.method" in (span.attributes or {})]
    requests = [span for span in of_http if span.kind is SpanKind.SERVER]
    tries = [span for span in of_http if span.kind is SpanKind.CLIENT]
    assert (len(requests), len(tries)) == (6, 10)
    assert len(of_http) == 16
    for span in of_http:
        attributes = dict(span.attributes or {})
        method = attributes["http.request.method"]
        assert method in methods
        name = "HTTP" if method == "_OTHER" else method
        if span.kind is SpanKind.SERVER:
            assert span.name == f"{name} {attributes['http.route']}"
            assert {"url.path", "url.scheme"} <= set(attributes)
        else:
            assert span.name == name
            assert {"url.full", "server.address", "server.port"} <= set(attributes)
        assert ("error.type" in attributes) == (not span.status.is_unset)
    resends = [(span.attributes or {}).get("http.request.resend_count") for span in tries]
    assert resends == [None, 1, 2, 3, 4] * 2
    outcomes = [
        ((span.attributes or {}).get("daybreak.outcome"), (span.attributes or {}).get("error.type"))
        for span in requests
    ]
    assert outcomes == [
        ("answered", None),
        ("cut_off", "cut_off"),
        (None, None),
        (None, None),
        ("store_unavailable", "store_unavailable"),
        ("not_ready", "not_ready"),
    ]


def test_spans_name_the_version_of_the_conventions(spans: list[ReadableSpan]) -> None:
    for span in spans:
        assert span.instrumentation_scope is not None
        assert span.instrumentation_scope.schema_url == "https://opentelemetry.io/schemas/1.44.0"


def test_steps_are_coalesced_below_the_limit_of_the_sdk(spans: list[ReadableSpan]) -> None:
    limit = SpanLimits().max_events
    assert limit is not None
    assert limit > span_steps.EVENTS_MAX
    phases = [span for span in spans if span.name == "denoise"]
    assert len(phases) == len(OUTCOMES)
    for span in phases:
        covered = [dict(event.attributes or {}) for event in span.events]
        assert 1 < len(covered) <= span_steps.EVENTS_MAX
        steps = [
            step
            for event in covered
            for step in range(
                int(str(event["daybreak.first_step"])), int(str(event["daybreak.last_step"])) + 1
            )
        ]
        assert steps == list(range(1, 501)), "every step is in exactly one event"


def test_the_events_of_a_session_stay_below_the_limit_and_cover_every_turn(spans: list[ReadableSpan]) -> None:
    limit = SpanLimits().max_events
    assert limit is not None
    carrying = [span for span in spans if span.name == "serve speech"]
    assert len(carrying) == 2
    for span in carrying:
        assert len(span.events) < limit
        assert [event.name for event in span.events].count("first_text") == 1
        covered = [dict(event.attributes or {}) for event in span.events if event.name == "turns"]
        assert len(covered) < TURNS / 10, "one event covers many turns"
        ends = [0, *(int(str(event["daybreak.last_turn"])) for event in covered)]
        assert [int(str(event["daybreak.first_turn"])) for event in covered] == [end + 1 for end in ends[:-1]]
        assert ends[-1] == TURNS == (span.attributes or {})["daybreak.turns"]


def test_a_session_has_one_trace_whose_spans_are_children_of_its_opening(spans: list[ReadableSpan]) -> None:
    opened, again = (span for span in spans if span.name == "POST /v1/sessions")
    names = {"wait speech", "serve speech", "end speech"}
    of_session = [span for span in spans if span.name in names]
    assert len(of_session) == 6
    for span in of_session:
        assert span.context.trace_id == opened.context.trace_id
        assert span.parent is not None
        assert span.parent.span_id == opened.context.span_id
    assert [link.context.span_id for link in again.links] == [opened.context.span_id]
    assert (again.attributes or {})["daybreak.repeated"] is True
    first, second = (dict(span.attributes or {}) for span in spans if span.name == "wait speech")
    assert "daybreak.lost_reason" not in first
    assert (second["daybreak.lost_group"], second["daybreak.lost_reason"]) == ("g-0", "lease_lost")


def test_no_span_has_anything_of_a_tasks_input_or_of_an_errors_message(spans: list[ReadableSpan]) -> None:
    assert "the-secret-prompt" not in "".join(span.to_json() for span in spans)


def test_an_outcome_that_is_no_failure_is_no_error(spans: list[ReadableSpan]) -> None:
    outcomes = [
        (attributes.get("daybreak.outcome"), attributes.get("error.type"))
        for span in spans
        if span.name == "process video"
        for attributes in [dict(span.attributes or {})]
    ]
    assert outcomes == [
        ("finished", None),
        ("error", "oops"),
        ("released", None),
        ("stopped", None),
        (None, "lease_lost"),
    ]
