"""The span `serve` of a session says what its group did, and why the group no longer has the session."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from daybreak_server.batching.iterations.lag import LagRules
from daybreak_server.batching.iterations.rules import IterationRules
from daybreak_server.domain.causes import Cause
from daybreak_server.domain.ids import AttemptToken, GroupId
from daybreak_server.domain.sessions import (
    SAMPLE_BYTES,
    SAMPLE_RATE,
    NewSession,
    SessionClaim,
    SessionId,
    SessionLease,
    SessionNews,
    SessionRecord,
    SessionState,
)
from daybreak_server.domain.tracing import TraceContext
from daybreak_server.engines.sessions.session_traces import SessionTraces
from daybreak_server.engines.sessions.table import SessionTable
from daybreak_server.observability.sampling import Sampler
from daybreak_server.observability.tracing import OpenTelemetryTracing
from daybreak_server.workloads.simulated_speech.model import SimulatedSpeech

BLOCK = round(0.48 * SAMPLE_RATE)
SESSION = SessionId("speech_1")
SAMPLED = TraceContext(traceparent=f"00-{'a' * 32}-{'b' * 16}-01")


class Traced:
    """A session table with the model of simulated speech, and the spans of the table's sessions."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        processor, sampler = SimpleSpanProcessor(self._exporter), Sampler(1.0, 1e6)
        tracing = OpenTelemetryTracing(processor, sampler, service_name="s", version="1")
        self.traces = SessionTraces(tracing, group=GroupId("g-1"))
        self.table = SessionTable(
            SimulatedSpeech(sleep=lambda _seconds: None),
            rules=IterationRules(gather_size=1),
            write=lambda _commits: None,
            traces=self.traces,
        )

    def take(
        self, *, blocks: int = 0, target: str = "de", attempt: int = 1, context: TraceContext | None = SAMPLED
    ) -> None:
        """Claim the session, and run the model until it has no more to do.

        ``blocks``: the length of the audio, which has ended; 0 for a session whose audio has not begun.
        """
        audio = bytes(blocks * BLOCK * SAMPLE_BYTES)
        new = NewSession(
            id=SESSION, pool="speech", tenant="t", source="en", target=target, trace_context=context
        )
        record = SessionRecord(
            session=new,
            state=SessionState.ACTIVE,
            received=blocks * BLOCK,
            input_ended=blocks > 0,
            attempt=attempt,
        )
        lease = SessionLease(session=SESSION, token=AttemptToken(f"{attempt}.n"))
        self.table.take(SessionClaim(lease=lease, record=record, turns=(), audio_start=0, audio=audio), 0.0)
        while self.table.step(0.0) is None:
            pass

    def serves(self) -> list[ReadableSpan]:
        """The spans ``serve`` that have ended."""
        return [span for span in self._exporter.get_finished_spans() if span.name.startswith("serve")]


def outcome(span: ReadableSpan) -> tuple[Any, Any]:
    attributes = dict(span.attributes or {})
    return attributes["daybreak.outcome"], attributes.get("error.type")


def test_a_session_that_finishes_has_its_first_text_and_its_turns() -> None:
    traced = Traced()
    traced.take(blocks=40)
    [span] = traced.serves()
    assert outcome(span) == ("finished", None)
    assert [event.name for event in span.events].count("first_text") == 1
    turns = [dict(event.attributes or {}) for event in span.events if event.name == "turns"]
    assert [(turn["daybreak.first_turn"], turn["daybreak.last_turn"]) for turn in turns] == [
        (1, 16),
        (17, 32),
        (33, 40),
    ]
    assert dict(span.attributes or {})["daybreak.group"] == "g-1"


@pytest.mark.parametrize(
    ("lose", "expected"),
    [
        (
            lambda traced: traced.table.add_news(
                SessionNews(session=SESSION, stale=True, reason="idle"), 0.0
            ),
            ("idle", None),
        ),
        (lambda traced: traced.table.add_news(SessionNews(session=SESSION, stale=True), 0.0), ("lost", None)),
        (
            lambda traced: traced.table.add_news(
                SessionNews(session=SESSION, error=Cause(reason="journal_damaged", message="m")), 0.0
            ),
            ("failed", "journal_damaged"),
        ),
        (
            lambda traced: traced.traces.end_all("group_broken", error="internal"),
            ("group_broken", "internal"),
        ),
    ],
    ids=["ended by the store", "lease gone", "damaged", "group broken"],
)
def test_a_session_that_is_lost_says_why(
    lose: Callable[[Traced], None], expected: tuple[str, str | None]
) -> None:
    traced = Traced()
    traced.take()
    assert traced.serves() == []
    lose(traced)
    assert [outcome(span) for span in traced.serves()] == [expected]


def test_a_group_continues_a_session_that_it_lost_without_noticing() -> None:
    traced = Traced()
    traced.take()
    traced.take(attempt=2)
    assert [lease.token for lease in traced.table.leases] == [AttemptToken("2.n")]
    assert [outcome(span) for span in traced.serves()] == [("lost", None)]


def test_a_session_that_the_model_cannot_begin_has_a_span_with_the_error() -> None:
    traced = Traced()
    traced.take(target="xx")
    assert [outcome(span) for span in traced.serves()] == [("failed", "unknown_languages")]


def test_a_change_of_the_length_of_turns_is_an_event() -> None:
    traced = Traced()
    traced.take()
    traced.table.lag_rules = LagRules(limit_s=1.0, lowest=2, highest=2)
    traced.table.measure(1.0, wall_ms=1e6)
    traced.table.forget(SESSION, "released")
    [span] = traced.serves()
    assert [(event.name, dict(event.attributes or {})) for event in span.events] == [
        ("degraded", {"daybreak.latency_multiplier": 2})
    ]


@pytest.mark.parametrize("context", [None, TraceContext(traceparent=f"00-{'a' * 32}-{'b' * 16}-00")])
def test_a_session_that_is_not_sampled_has_no_span(context: TraceContext | None) -> None:
    traced = Traced()
    traced.take(blocks=2, context=context)
    assert traced.serves() == []
