"""What a group measures about its sessions and about the steps of its model.

The methods that are called in each step are cheap, because they only collect values. Once a second,
:meth:`SessionMetrics.measured` exports the collected values. No method ever raises.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from daybreak_server.batching.iterations.history import BatchRecord, Phase
from daybreak_server.domain.sessions import SessionClaim, SessionId, SessionsMeasured
from daybreak_server.engines.common.rank_metrics import harmless
from daybreak_server.observability import request_catalogue
from daybreak_server.observability import session_catalogue as catalogue
from daybreak_server.ports.metrics import Meter, Metric, NoMeter

_WRITTEN = "output"
"""The label ``kind`` of the tokens that the model writes."""


class SessionMetrics:
    """The metrics of one group. Without a meter it measures nothing."""

    def __init__(self, meter: Meter | None = None, *, pool: str = "") -> None:
        self._meter = meter or NoMeter()
        self._pool = pool
        self._without_audio: set[SessionId] = set()
        """New sessions from which no audio has arrived."""
        self._textless: dict[SessionId, float] = {}
        """For each new session that has audio and no text yet: when this group first had audio of the session."""
        self._first_texts: list[float] = []
        self._batches: list[BatchRecord[SessionId]] = []
        self._begin_counting()

    @harmless
    def _begin_counting(self) -> None:
        """Export totals from the start: a rate needs a value before the first event."""
        self._meter.counter(catalogue.RANK_AUDIO, self._pool).inc(0)
        self._meter.counter(request_catalogue.RANK_TOKENS, self._pool, _WRITTEN).inc(0)

    @harmless
    def took(self, claim: SessionClaim, now: float) -> None:
        """The group has taken a session. The delay of the first text is measured only for new sessions."""
        if claim.record.attempt > 1:
            return
        session = claim.record.session.id
        if claim.audio:
            self._textless[session] = now
        else:
            self._without_audio.add(session)

    @harmless
    def got_audio(self, session: SessionId, now: float) -> None:
        """Audio has come for a session."""
        if session in self._without_audio:
            self._without_audio.discard(session)
            self._textless[session] = now

    @harmless
    def wrote(self, session: SessionId, now: float) -> None:
        """The model has written text for a session."""
        if session in self._textless:
            self._first_texts.append(now - self._textless.pop(session))

    @harmless
    def forgot(self, session: SessionId) -> None:
        """The group no longer has the session."""
        self._without_audio.discard(session)
        self._textless.pop(session, None)

    @harmless
    def batch_completed(self, record: BatchRecord[SessionId]) -> None:
        """The model has computed a batch."""
        self._batches.append(record)

    @harmless
    def measured(
        self,
        measured: SessionsMeasured,
        *,
        lags: Sequence[float],
        longer: float,
        memory: tuple[int, int],
    ) -> None:
        """Export the present state, and what the other calls have collected.

        :param lags: The lag of each session.
        :param longer: The present length of turns, divided by the length in the settings.
        :param memory: How many bytes of the caches are in use, and how many are reserved.
        """
        self._gauges(measured, sessions=len(lags), longer=longer, memory=memory)
        self._observe_all(catalogue.RANK_SESSION_LAG, lags)
        self._observe_all(catalogue.RANK_FIRST_TEXT, self._first_texts)
        for phase in Phase:
            records = [record for record in self._batches if record.phase is phase]
            self._observe_all(catalogue.RANK_ITERATION_SIZE, (record.size for record in records), phase.value)
            self._observe_all(catalogue.RANK_ITERATION, (record.seconds for record in records), phase.value)
            stepped = self._meter.counter(catalogue.RANK_ITERATION_SESSIONS, self._pool, phase.value)
            stepped.inc(sum(record.size for record in records))
        busy_s = sum(record.seconds for record in self._batches)
        self._meter.counter(catalogue.RANK_ITERATION_BUSY, self._pool).inc(busy_s)
        self._meter.counter(catalogue.RANK_AUDIO, self._pool).inc(
            sum(record.audio_s for record in self._batches)
        )
        tokens = sum(record.tokens for record in self._batches)
        self._meter.counter(request_catalogue.RANK_TOKENS, self._pool, _WRITTEN).inc(tokens)
        self._first_texts.clear()
        self._batches.clear()

    def _gauges(
        self, measured: SessionsMeasured, *, sessions: int, longer: float, memory: tuple[int, int]
    ) -> None:
        used, reserved = memory
        for metric, label, value in (
            (catalogue.RANK_SESSIONS, (), sessions),
            (catalogue.RANK_LATENCY_MULTIPLIER, (), longer),
            (catalogue.RANK_SESSIONS_FULL, (), int(measured.full)),
            (catalogue.RANK_TURNS_WAITING, (Phase.PREFILL.value,), measured.prefill),
            (catalogue.RANK_TURNS_WAITING, (Phase.DECODE.value,), measured.decode),
            (catalogue.RANK_SESSION_CACHE, ("used",), used),
            (catalogue.RANK_SESSION_CACHE, ("free",), max(0, reserved - used)),
        ):
            self._meter.gauge(metric, self._pool, *label).set(value)

    def _observe_all(self, metric: Metric, values: Iterable[float], *labels: str) -> None:
        series = self._meter.histogram(metric, self._pool, *labels)
        for value in values:
            series.observe(value)
