"""The table of a group's sessions. It also holds the scheduler and the model. Only the work thread may use the table.

A session fails if the model returns :class:`SessionFailedError` for it, or raises an exception in a step that has only
this session. The other sessions continue (:mod:`.model_steps`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from daybreak_server.batching.iterations.history import Phase
from daybreak_server.batching.iterations.lag import LagRules, LagState, observe, percentile, session_lag_s
from daybreak_server.batching.iterations.rules import IterationRules
from daybreak_server.batching.iterations.scheduler import Batch, Scheduler
from daybreak_server.batching.iterations.strategy import WaitUntil
from daybreak_server.domain.causes import Cause
from daybreak_server.domain.sessions import (
    SAMPLE_RATE,
    SessionClaim,
    SessionCommit,
    SessionEnd,
    SessionId,
    SessionLease,
    SessionNews,
    SessionsMeasured,
    SessionsThroughput,
)
from daybreak_server.engines.sessions.model_steps import ModelSteps, cause_of
from daybreak_server.engines.sessions.session import EndlessTurnError, Session
from daybreak_server.engines.sessions.session_metrics import SessionMetrics
from daybreak_server.engines.sessions.session_traces import LOST, SessionTraces
from daybreak_server.workloads.base import WorkloadError
from daybreak_server.workloads.sessions import Prefill, SessionModel, Token

_log = logging.getLogger(__name__)
LAG_SHARE = 0.95
"""The lag of a group is this percentile of the lags of its sessions."""


def _tell_nobody(_sessions: Sequence[SessionId]) -> None:
    """Do nothing: no other process needs to know with which sessions the model works."""


class SessionTable:
    """The table of a group's sessions.

    ``write`` gets the commits of each step, in order. ``work_on`` gets the sessions with which the model begins to
    work, and ``()`` once this work is done. If the process dies in between, one of these sessions may be the cause.
    """

    def __init__(
        self,
        model: SessionModel,
        *,
        rules: IterationRules,
        write: Callable[[Sequence[SessionCommit]], None],
        metrics: SessionMetrics | None = None,
        traces: SessionTraces | None = None,
        work_on: Callable[[Sequence[SessionId]], None] = _tell_nobody,
    ) -> None:
        self._model, self._steps = model, ModelSteps(model)
        self._metrics = metrics or SessionMetrics()
        self._traces = traces or SessionTraces()
        self._write_commits = write
        self._work_on = work_on
        self._pairs = {(pair.source, pair.target): pair for pair in model.shape.pairs}
        self._sessions: dict[SessionId, Session] = {}
        self.scheduler: Scheduler[SessionId] = Scheduler(rules, block_tokens=self._steps.block_tokens)
        self.lag_rules = LagRules()
        self._lag = LagState()
        self.measured = SessionsMeasured(room=model.shape.max_sessions)
        """The last measurement."""

    def __len__(self) -> int:
        return len(self._sessions)

    @property
    def room(self) -> int:
        """The number of further sessions that fit into the model's memory."""
        return self._model.shape.max_sessions - len(self._sessions)

    @property
    def leases(self) -> list[SessionLease]:
        """The leases of all sessions."""
        return [session.lease for session in self._sessions.values()]

    @property
    def positions(self) -> dict[SessionLease, int]:
        """For each session whose audio has not ended: how many of its samples have been received."""
        return {
            session.lease: session.received for session in self._sessions.values() if not session.input_ended
        }

    def take(self, claim: SessionClaim, now: float) -> None:
        """Begin to serve a session, from its beginning or from where its last owner left it."""
        self.forget(claim.lease.session)  # the group may have lost it without noticing, and claimed it again
        self._traces.took(claim)
        session, languages = Session(claim, self._model.shape), claim.record.session
        pair = self._pairs.get((languages.source, languages.target))
        if pair is None:
            known = ", ".join(f"{source} → {target}" for source, target in sorted(self._pairs))
            message = (
                f"the model does not translate {languages.source} to {languages.target}; it knows {known}"
            )
            self._fail(session, Cause(reason="unknown_languages", message=message))
            return
        self._work_on((session.id,))
        try:
            self._model.open(session.id, pair, session.past)
        except Exception as exc:
            self._work_on(())
            _log.exception("session %s cannot be opened", session.id)
            self._model.close(session.id)
            self._fail(session, cause_of(exc))
            return
        self._work_on(())
        session.past = ()
        self._sessions[session.id] = session
        self._metrics.took(claim, now)
        if session.turn is not None:
            self.scheduler.decode_ready(session.id, now)
        self._announce(session, now)
        self._adjust([session])

    def add_news(self, news: SessionNews, now: float) -> None:
        """Add the audio that has arrived for a session. Drop the session if its lease is stale. Fail the session if its
        audio can never be read."""
        session = self._sessions.get(news.session)
        if session is None:
            return
        if news.stale:
            self.forget(news.session, news.reason or LOST)
            return
        if news.error is not None:
            self._fail(session, news.error)
            return
        session.add_audio(news.audio, input_ended=news.input_ended)
        self._metrics.got_audio(session.id, now)
        self._announce(session, now)

    def forget(self, session: SessionId, reason: str = LOST, *, error: str = "") -> None:
        """Drop a session that has ended, was lost or is given up. Its trace gets ``reason`` and ``error``."""
        self._traces.ended(session, reason, error=error)
        if self._sessions.pop(session, None) is not None:
            self.scheduler.forget(session)
            self._model.close(session)
            self._metrics.forgot(session)

    def step(self, now: float) -> float | None:
        """Run the next batch, and return ``None``.

        If there is no batch, return the time at which to call again. ``inf`` means that the caller need not call again
        before something new arrives.
        """
        batch = self.scheduler.next(now)
        if batch is None:
            return float("inf")
        if isinstance(batch, WaitUntil):
            return batch.at
        self._run(batch)
        return None

    def measure(self, now: float, *, wall_ms: float) -> None:
        """Measure the lag, and change the length of turns if the lag is too large or has become small."""
        lags = [self._lag_s(session, wall_ms) for session in self._sessions.values()]
        lag_s, before, rules = percentile(lags, LAG_SHARE), self._lag, self._rules()
        before = replace(before, multiplier=min(max(before.multiplier, rules.lowest), rules.highest))
        self._lag = observe(before, lag_s, now, rules)
        if self._lag.multiplier != before.multiplier or self._lag.full != before.full:
            _log.warning(
                "the lag is %.2f s: latency multiplier %d, %s sessions",
                lag_s,
                self._lag.multiplier,
                "refusing new" if self._lag.full else "accepting",
            )
        audio_s, tokens, batches = self.scheduler.history.rates(now)
        self.measured = SessionsMeasured(
            lag_ms=lag_s * 1000,
            full=self._lag.full,
            latency_multiplier=self._lag.multiplier,
            room=max(0, self.room),
            prefill=self.scheduler.waiting(Phase.PREFILL),
            decode=self.scheduler.waiting(Phase.DECODE),
            throughput=SessionsThroughput(audio_s=audio_s, tokens=tokens, batches=batches),
            batches=self.scheduler.history.by_size,
        )
        self._metrics.measured(
            self.measured,
            lags=lags,
            longer=self._lag.multiplier / rules.lowest,
            memory=self._model.memory(),
        )
        self._adjust(self._sessions.values())

    def _rules(self) -> LagRules:
        """The rules from the settings. Their multipliers are limited to the longest turn that the model allows."""
        fitting, rules = self._model.shape.blocks_that_fit, self.lag_rules
        return replace(rules, lowest=fitting(rules.lowest), highest=fitting(rules.highest))

    def _lag_s(self, session: Session, wall_ms: float) -> float:
        return session_lag_s(
            received_s=session.received / SAMPLE_RATE,
            consumed_s=session.consumed / SAMPLE_RATE,
            turn_s=session.turn_samples / SAMPLE_RATE,
            elapsed_s=max(0.0, wall_ms - session.opened_ms) / 1000,
        )

    def _adjust(self, sessions: Iterable[Session]) -> None:
        """Give the sessions the group's latency multiplier, from their next turns on."""
        commits = [session.degrade(self._lag.multiplier, lag_ms=self.measured.lag_ms) for session in sessions]
        if changed := [commit for commit in commits if commit is not None]:
            self._write(changed)

    def _fail(self, session: Session, cause: Cause) -> None:
        """End a session that cannot continue."""
        self._write([session.fail(cause)])
        self.forget(session.id, SessionEnd.FAILED, error=cause.reason)

    def _write(self, commits: Sequence[SessionCommit]) -> None:
        for commit in commits:
            self._traces.wrote(commit)
        self._write_commits(commits)

    def _announce(self, session: Session, now: float) -> None:
        samples = session.ready()
        if samples is not None:
            session.announced = samples
            self.scheduler.prefill_ready(
                session.id, now, seconds=samples / SAMPLE_RATE, blocks=session.blocks(samples)
            )

    def _pieces(self, batch: Batch[SessionId]) -> list[Prefill]:
        """The audio that the model reads in a batch."""
        pieces = zip(batch.prefill, batch.blocks, strict=True)
        return [
            self._sessions[session].read(blocks if session in batch.unfinished else None)
            for session, blocks in pieces
        ]

    def _run(self, batch: Batch[SessionId]) -> None:
        self._work_on(batch.sessions)
        results = self._steps.run(self._pieces(batch), batch.decode)
        self._work_on(())
        now = time.monotonic()
        commits, continuing, ended = [], [], []
        for session_id, result in results.items():
            if result is None:  # more audio of the turn follows
                continue
            session = self._sessions[session_id]
            commit = _outcome(session, result)
            commits.append(commit)
            if isinstance(result, Token) and result.text:
                self._metrics.wrote(session_id, now)
                self._traces.wrote_text(session_id)
            if commit.end is not None:
                ended.append(commit)
            elif session.turn is not None:
                continuing.append(session_id)
        self._write(commits)
        for session_id in continuing:
            self.scheduler.decode_ready(session_id, now)
        tokens = sum(isinstance(result, Token) and result.token is not None for result in results.values())
        self._metrics.batch_completed(self.scheduler.complete(batch, now, tokens=tokens))
        for commit in ended:
            self.forget(
                commit.lease.session, str(commit.end), error=commit.error.reason if commit.error else ""
            )
        for session_id in results:  # in the order of the batch
            if session_id in self._sessions:
                self._announce(self._sessions[session_id], now)


def _outcome(session: Session, result: Token | WorkloadError) -> SessionCommit:
    if isinstance(result, WorkloadError):
        return session.fail(cause_of(result))
    try:
        return session.write(result)
    except EndlessTurnError as exc:
        return session.fail(cause_of(exc))
