"""One run, on one thread. Users speak in real time, and the scheduler and the model of a group serve their sessions.

The audio of a turn arrives all at once, when the user has spoken the whole turn. The group writes to memory instead of
Redis. The group does not react to lag, so the length of turns never changes.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Sequence

from daybreak_server.batching.iterations import IterationRules
from daybreak_server.domain.ids import AttemptToken
from daybreak_server.domain.sessions import (
    SAMPLE_RATE,
    NewSession,
    SessionClaim,
    SessionCommit,
    SessionId,
    SessionLease,
    SessionNews,
    SessionRecord,
    SessionState,
)
from daybreak_server.engines.sessions.table import SessionTable
from daybreak_server.workloads.sessions import SessionModel
from verification.benchmarks.sessions.measured.speakers import References, Speaker
from verification.benchmarks.sessions.outcome import Outcome

LATE_SHARE = 0.05
"""Only the turns of the last two thirds of a run count. The run stops early when more than this share of them are too
late. The 95th percentile of the lag is then above the limit."""


class PacedRun:
    """One run with a fixed number of users."""

    def __init__(
        self,
        model: SessionModel,
        rules: IterationRules,
        speakers: Sequence[Speaker],
        *,
        for_s: float,
        limit_s: float,
    ) -> None:
        self._speakers, self._for_s, self._limit_s = speakers, for_s, limit_s
        self._samples = model.shape.block_samples
        self._turn_s = self._samples / SAMPLE_RATE
        self._table = SessionTable(model, rules=rules, write=self._written)
        self._late_at_most = LATE_SHARE * len(speakers) * for_s * 2 / 3 / self._turn_s
        """How many turns may be late. Only the turns of the last two thirds of the run count."""
        self._late = 0
        self._began = 0.0
        self.turns: list[list[tuple[int, ...]]] = [[] for _ in speakers]
        """The tokens of each turn of each user."""
        self.outcome = Outcome(for_s=for_s)

    def run(self) -> Outcome:
        """Let the users speak, and then close their sessions."""
        for user in range(len(self._speakers)):
            self._table.take(_claim(user, self._speakers[user]), 0.0)
        try:
            self._speak()
        finally:
            for lease in self._table.leases:
                self._table.forget(lease.session)
        self.outcome.sizes = [
            size
            for sizes in self._table.scheduler.history.by_size.values()
            for size, count in sizes.items()
            for _ in range(count)
        ]
        self._count_unfinished()
        return self.outcome

    def differing(self, references: References) -> int:
        """How many users got tokens that differ from those that they would get alone."""
        return sum(map(references.differs, self._speakers, self.turns))

    def _speak(self) -> None:
        self._began = time.monotonic()
        end = self._began + self._for_s
        spoken = [(self._ready(user, 0), user, 0) for user in range(len(self._speakers))]
        heapq.heapify(spoken)
        while (now := time.monotonic()) < end and not self.outcome.gave_up:
            while spoken[0][0] <= now - self._began:
                _, user, turn = spoken[0]
                heapq.heapreplace(spoken, (self._ready(user, turn + 1), user, turn + 1))
                audio = self._speakers[user].turn(turn, self._samples)
                self._table.add_news(SessionNews(session=_name(user), audio=audio), now)
            started = time.monotonic()
            due_at = self._table.step(started)
            if due_at is None:
                self.outcome.busy_s += time.monotonic() - started
            else:
                until = min(due_at, self._began + spoken[0][0], end)
                time.sleep(max(0.0, until - time.monotonic()))

    def _ready(self, user: int, turn: int) -> float:
        """Seconds from the start of the run until the audio of a turn is complete."""
        return self._speakers[user].starts_s + (turn + 1) * self._turn_s

    def _written(self, commits: Sequence[SessionCommit]) -> None:
        now = time.monotonic() - self._began
        for commit in commits:
            if commit.end is not None:
                raise RuntimeError(f"session {commit.lease.session} has ended: {commit.error}")
            if commit.turn is None:
                continue
            if not commit.turn.complete:
                self.outcome.tokens += 1
                continue
            user = int(commit.lease.session)
            ready = self._ready(user, len(self.turns[user]))
            self.turns[user].append(commit.turn.tokens)
            self.outcome.lags.append((ready, now - ready))
            self._late += now - ready >= self._limit_s and ready >= self._for_s / 3
            self.outcome.gave_up = self._late > self._late_at_most

    def _count_unfinished(self) -> None:
        """Add the lags of the turns that are too late and have not ended, as if they ended with the run."""
        for user, turns in enumerate(self.turns):
            turn = len(turns)
            while (ready := self._ready(user, turn)) < self._for_s - self._limit_s:
                self.outcome.lags.append((ready, self._for_s - ready))
                turn += 1


def _name(user: int) -> SessionId:
    return SessionId(str(user))


def _claim(user: int, speaker: Speaker) -> SessionClaim:
    session = NewSession(id=_name(user), pool="speech", tenant="bench", source="en", target=speaker.target)
    record = SessionRecord(session=session, state=SessionState.ACTIVE)
    lease = SessionLease(session=session.id, token=AttemptToken("1.bench"))
    return SessionClaim(lease=lease, record=record, turns=(), audio_start=0, audio=b"")
