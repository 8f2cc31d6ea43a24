"""What a group measures of its sessions: every metric has a value, and says what happened."""

from __future__ import annotations

import pytest

from daybreak_server.batching.iterations.lag import LagRules
from daybreak_server.batching.iterations.rules import IterationRules
from daybreak_server.domain.ids import AttemptToken
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
from daybreak_server.engines.sessions.session_metrics import SessionMetrics
from daybreak_server.engines.sessions.table import SessionTable
from daybreak_server.observability import session_catalogue
from daybreak_server.observability.catalogue import exported_by
from daybreak_server.observability.prometheus_meter import PrometheusMeter
from daybreak_server.ports.metrics import Exporter
from daybreak_server.workloads.simulated_speech.model import SESSION_BYTES, SimulatedSpeech

BLOCK_S = 0.48


class Measured:
    """A session table that runs the model of simulated speech, and the metrics of this table."""

    def __init__(self) -> None:
        self.meter = PrometheusMeter(exported_by(Exporter.RANK))
        self.now = 0.0
        self.table = SessionTable(
            SimulatedSpeech(sleep=self._sleep),
            rules=IterationRules(gather_size=1),
            write=lambda _commits: None,
            metrics=SessionMetrics(self.meter, pool="speech"),
        )
        self.table.lag_rules = LagRules(limit_s=1.0, highest=2)

    def _sleep(self, seconds: float) -> None:
        """Return at once, so that the model takes no time."""

    def take(self, name: str, *, blocks: int = 0, attempt: int = 1) -> SessionId:
        session = SessionId(name)
        audio = bytes(round(blocks * BLOCK_S * SAMPLE_RATE) * SAMPLE_BYTES)
        record = SessionRecord(
            session=NewSession(id=session, pool="speech", tenant="t", source="en", target="de"),
            state=SessionState.ACTIVE,
            received=len(audio) // SAMPLE_BYTES,
            attempt=attempt,
        )
        lease = SessionLease(session=session, token=AttemptToken(f"{attempt}.n"))
        self.table.take(
            SessionClaim(lease=lease, record=record, turns=(), audio_start=0, audio=audio), self.now
        )
        return session

    def run(self) -> None:
        while self.table.step(self.now) is None:
            pass

    def measure(self) -> None:
        self.now += 1.0
        self.table.measure(self.now, wall_ms=1e6)

    def value(self, name: str, **labels: str) -> float | None:
        return self.meter.registry.get_sample_value(f"daybreak_rank_{name}", {"pool": "speech", **labels})


@pytest.fixture
def measured() -> Measured:
    return Measured()


def test_every_metric_of_a_group_has_a_value(measured: Measured) -> None:
    measured.take("a", blocks=2)
    measured.run()
    measured.measure()
    shown = measured.meter.render().decode()
    series = {line.partition("{")[0] for line in shown.splitlines() if not line.startswith("#")}
    ours = [metric.name for metric in session_catalogue.ALL if Exporter.RANK in metric.exporters]
    assert [name for name in ours if not {name, f"{name}_count"} & series] == []


def test_steps_tokens_and_audio_are_those_of_the_scheduler(measured: Measured) -> None:
    for name in "abc":
        measured.take(name, blocks=2)
    measured.run()
    measured.measure()
    records = list(measured.table.scheduler.history)
    prefills = [record for record in records if record.prefill]
    assert measured.value("iteration_items_count", phase="prefill") == len(prefills)
    assert measured.value("iteration_items_sum", phase="prefill") == 6
    assert measured.value("iteration_sessions_total", phase="prefill") == 6
    assert measured.value("iteration_busy_seconds_total") == sum(record.seconds for record in records)
    assert measured.value("iteration_seconds_count", phase="decode") == len(records) - len(prefills)
    assert measured.value("tokens_total", kind="output") == sum(record.tokens for record in records)
    assert measured.value("audio_seconds_total") == pytest.approx(6 * BLOCK_S)
    measured.measure()
    assert measured.value("iteration_items_count", phase="prefill") == len(prefills), "each step counts once"


def test_the_caches_and_sessions_are_those_of_now(measured: Measured) -> None:
    first = measured.take("a")
    measured.take("b")
    measured.measure()
    assert measured.value("sessions") == 2
    assert measured.value("session_cache_bytes", state="used") == 2 * SESSION_BYTES
    measured.table.forget(first)
    measured.measure()
    assert measured.value("sessions") == 1
    assert measured.value("session_cache_bytes", state="used") == SESSION_BYTES


def test_the_first_text_is_measured_from_the_first_audio_once(measured: Measured) -> None:
    """The time to the first text is not measured for a session that another group began."""
    session = measured.take("a")
    measured.take("b", blocks=1, attempt=2)
    measured.now = 5.0
    audio = bytes(round(2 * BLOCK_S * SAMPLE_RATE) * SAMPLE_BYTES)
    measured.table.add_news(SessionNews(session=session, audio=audio), measured.now)
    measured.run()
    measured.measure()
    assert measured.value("first_text_seconds_count") == 1


def test_a_group_that_lags_shows_it_before_and_after_it_refuses(measured: Measured) -> None:
    measured.take("a", blocks=20)
    measured.measure()
    assert measured.value("session_lag_seconds_count") == 1
    assert measured.value("session_lag_seconds_bucket", le="5.0") == 0
    assert measured.value("latency_multiplier_ratio") == 1
    assert measured.value("turns_waiting", phase="prefill") == 1
    measured.measure()
    assert measured.value("latency_multiplier_ratio") == 2
    assert measured.value("sessions_full") == 0
    measured.measure()
    assert measured.value("sessions_full") == 1
