"""What a group does with its sessions when the model fails, when the lag grows, and when a session is taken from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from daybreak_server.batching.iterations import IterationRules, Phase
from daybreak_server.batching.iterations.lag import LagRules
from daybreak_server.domain.ids import AttemptToken
from daybreak_server.domain.sessions import (
    NewSession,
    SessionClaim,
    SessionCommit,
    SessionEnd,
    SessionEventType,
    SessionId,
    SessionLease,
    SessionNews,
    SessionRecord,
    SessionState,
    Turn,
)
from daybreak_server.engines.sessions.table import SessionTable
from daybreak_server.workloads.base import Group
from daybreak_server.workloads.sessions import (
    LanguagePair,
    PastTurn,
    Prefill,
    SessionFailedError,
    Shape,
    Token,
)

PAIR = LanguagePair(source="en", target="de", source_name="English", target_name="German")
BLOCK = 1600


class Counting:
    """A model whose turns have two tokens. The text of a token is its number in the session."""

    def __init__(self) -> None:
        self.shape = Shape(
            pairs=(PAIR,), block_samples=BLOCK, window_turns=2, max_sessions=8, max_turn_tokens=4
        )
        self.written: dict[str, int] = {}
        self.opened: dict[str, Sequence[PastTurn]] = {}
        self.sizes: list[int] = []
        self.prefilled: list[Prefill] = []
        self.raises: set[str] = set()
        """Each step with one of these sessions raises an error."""
        self.fails: set[str] = set()
        """The model returns or raises an error for these sessions."""
        self.endless: set[str] = set()
        self.raises_together = False

    def load(self, group: Group) -> None: ...

    def warm_up(self) -> None: ...

    def open(self, session: str, pair: LanguagePair, past: Sequence[PastTurn] = ()) -> None:
        if session in self.fails:
            raise SessionFailedError("no memory")
        self.opened[session], self.written[session] = past, 0

    def prefill(self, batch: Sequence[Prefill]) -> Sequence[Token | SessionFailedError]:
        self._step([item.session for item in batch])
        self.prefilled += batch
        return [self._token(item.session) for item in batch]

    def decode(self, sessions: Sequence[str]) -> Sequence[Token | SessionFailedError]:
        self._step(sessions)
        return [self._token(session) for session in sessions]

    def _step(self, sessions: Sequence[str]) -> None:
        if self.raises & set(sessions) or (self.raises_together and len(sessions) > 1):
            raise RuntimeError("the device is on fire")
        self.sizes.append(len(sessions))

    def _token(self, session: str) -> Token | SessionFailedError:
        if session in self.fails:
            return SessionFailedError("not this one")
        self.written[session] += 1
        number = self.written[session]
        if number % 3 == 0 and session not in self.endless:
            return Token(session=session, token=None)
        return Token(session=session, token=number, text=f"{number} ", ends_segment=number % 3 == 2)

    def close(self, session: str) -> None:
        self.opened.pop(session, None)

    def memory(self) -> tuple[int, int]:
        return len(self.opened), 8


class Bench:
    """A table with a model, by default :class:`Counting`, and everything that the table has written."""

    def __init__(self, model: Any = None, rules: IterationRules | None = None) -> None:
        self.model: Any = model or Counting()
        self.commits: list[SessionCommit] = []
        rules = rules or IterationRules(gather_size=1)
        self.worked_on: list[list[SessionId]] = []
        self.table = SessionTable(
            self.model,
            rules=rules,
            write=self.commits.extend,
            work_on=lambda sessions: self.worked_on.append(list(sessions)),
        )
        self.languages = {"source": "en", "target": "de"}

    def take(
        self,
        name: str,
        *,
        seconds: float = 0.0,
        audio: bytes = b"",
        input_ended: bool = False,
        multiplier: int = 1,
        **fields: Any,
    ) -> SessionId:
        session = SessionId(name)
        audio = audio or bytes(2 * int(seconds * 16_000))
        record = SessionRecord(
            session=NewSession(
                id=session, pool="p", tenant="t", latency_multiplier=multiplier, **self.languages
            ),
            latency_multiplier=multiplier,
            state=SessionState.ACTIVE,
            received=len(audio) // 2,
            input_ended=input_ended,
        )
        claim = {
            "lease": SessionLease(session=session, token=AttemptToken("1.n")),
            "record": record,
            "turns": (),
            "audio_start": 0,
            "audio": audio,
        }
        self.table.take(SessionClaim(**(claim | fields)), 0.0)
        return session

    def run(self) -> None:
        """Run all batches that are due."""
        for _ in range(1000):
            if self.table.step(0.0) is not None:
                return
        raise AssertionError("the batches do not end")

    def of(self, session: str) -> list[SessionCommit]:
        return [commit for commit in self.commits if commit.lease.session == session]

    def text(self, session: str) -> str:
        return "".join(
            data["text"]
            for commit in self.of(session)
            for kind, data in commit.events
            if kind is SessionEventType.TEXT
        )


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_turn_is_written_token_by_token(bench: Bench) -> None:
    bench.take("a", seconds=0.25)
    bench.run()
    turns = [commit.turn for commit in bench.of("a") if commit.turn is not None]
    assert turns == [
        Turn(start=0, end=1600, tokens=(1,), complete=False),
        Turn(start=0, end=1600, tokens=(1, 2), complete=False),
        Turn(start=0, end=1600, tokens=(1, 2)),
        Turn(start=1600, end=3200, tokens=(4,), complete=False),
        Turn(start=1600, end=3200, tokens=(4, 5), complete=False),
        Turn(start=1600, end=3200, tokens=(4, 5)),
    ]
    assert [commit.number for commit in bench.of("a")] == list(range(1, 7))
    (segment,) = [data for kind, data in bench.of("a")[1].events if kind is SessionEventType.SEGMENT]
    assert segment == {"segment": 0, "text": "1 2", "start_ms": 0, "end_ms": 100}
    assert [commit.keep_from for commit in bench.of("a") if commit.keep_from is not None] == [0, 0]


def test_the_window_is_two_turns(bench: Bench) -> None:
    bench.take("a", seconds=0.45)
    bench.run()
    kept = [commit.keep_from for commit in bench.of("a") if commit.keep_from is not None]
    assert kept == [0, 0, 1600, 3200]


def test_the_end_of_the_input_ends_the_session_after_the_rest(bench: Bench) -> None:
    session = bench.take("a", seconds=0.15)
    bench.run()
    bench.table.add_news(SessionNews(session=session, audio=b"", input_ended=True), 0.0)
    bench.run()
    assert [(len(item.audio) // 2, item.last) for item in bench.model.prefilled] == [
        (1600, False),
        (800, True),
    ]
    last = bench.of("a")[-1]
    assert (last.end, last.turn and last.turn.last) == (SessionEnd.FINISHED, True)
    assert (len(bench.table), bench.model.opened) == (0, {})


def test_sessions_share_batches(bench: Bench) -> None:
    for name in "abcd":
        bench.take(name, seconds=0.1)
    bench.run()
    assert bench.model.sizes == [4, 4, 4]


def test_each_step_of_the_model_leaves_a_record(bench: Bench) -> None:
    """The record says what the step did, for which sessions, and how many tokens it wrote."""
    for name in "abc":
        bench.take(name, seconds=0.1)
    bench.model.fails = {"b"}
    bench.run()
    records = [
        (record.number, record.phase, record.prefill, record.decode, round(record.audio_s, 6), record.tokens)
        for record in bench.table.scheduler.history
    ]
    assert records == [
        (0, Phase.PREFILL, ("a", "b", "c"), (), 0.3, 2),
        (1, Phase.DECODE, (), ("a", "c"), 0.0, 2),
        (2, Phase.DECODE, (), ("a", "c"), 0.0, 0),
    ]


def test_a_session_that_the_model_refuses_fails_alone(bench: Bench) -> None:
    for name in "abc":
        bench.take(name, seconds=0.1)
    bench.model.fails = {"b"}
    bench.run()
    assert (bench.text("a"), bench.text("b"), bench.text("c")) == ("1 2 ", "", "1 2 ")
    (failed,) = bench.of("b")
    assert failed.end is SessionEnd.FAILED
    assert failed.error is not None
    assert failed.error.message == "not this one"
    assert len(bench.table) == 2


def test_a_step_that_raises_is_repeated_for_each_session_alone(bench: Bench) -> None:
    for name in "abc":
        bench.take(name, seconds=0.1)
    bench.model.raises = {"b"}
    bench.run()
    assert (bench.text("a"), bench.text("c")) == ("1 2 ", "1 2 ")
    assert [commit.end for commit in bench.of("b")] == [SessionEnd.FAILED]


def test_a_step_that_fails_only_in_a_batch_fails_nobody(bench: Bench) -> None:
    bench.model.raises_together = True
    for name in "abc":
        bench.take(name, seconds=0.1)
    bench.run()
    assert {bench.text(name) for name in "abc"} == {"1 2 "}


def test_a_broken_device_fails_the_group_and_no_session(bench: Bench) -> None:
    for name in "abc":
        bench.take(name, seconds=0.1)
    bench.model.raises = {"a", "b", "c"}
    with pytest.raises(RuntimeError, match="on fire"):
        bench.run()
    assert bench.commits == []


def test_a_session_that_cannot_be_opened_fails_alone(bench: Bench) -> None:
    bench.model.fails = {"a"}
    bench.take("a")
    assert [commit.end for commit in bench.of("a")] == [SessionEnd.FAILED]
    assert len(bench.table) == 0


def test_an_endless_turn_fails_its_session(bench: Bench) -> None:
    bench.model.endless = {"a"}
    bench.take("a", seconds=0.1)
    bench.take("b", seconds=0.1)
    bench.run()
    assert bench.of("a")[-1].end is SessionEnd.FAILED
    assert bench.text("b") == "1 2 "


def test_a_turn_of_another_group_continues_after_its_last_token(bench: Bench) -> None:
    turns = (
        Turn(start=1600, end=3200, tokens=(7, 8)),
        Turn(start=3200, end=4800, tokens=(9,), complete=False),
    )
    audio = b"".join(number.to_bytes(2, "little") for number in range(1600, 4900))
    record = SessionRecord(
        session=NewSession(id=SessionId("a"), pool="p", tenant="t", source="en", target="de"),
        state=SessionState.ACTIVE,
        received=4900,
        consumed=3200,
        latency_multiplier=1,
    )
    bench.take("a", record=record, turns=turns, audio_start=1600, audio=audio)
    past = bench.model.opened["a"]
    assert [(turn.audio, turn.tokens, turn.complete) for turn in past] == [
        (audio[:3200], (7, 8), True),
        (audio[3200:6400], (9,), False),
    ]
    bench.run()
    first = bench.of("a")[0].turn
    assert first == Turn(start=3200, end=4800, tokens=(9, 1), complete=False)
    assert not bench.model.prefilled
    bench.table.add_news(SessionNews(session=SessionId("a"), input_ended=True), 0.0)
    bench.run()
    assert bench.model.prefilled[0].audio == audio[6400:]


def test_a_sentence_of_two_groups_has_all_of_its_words(bench: Bench) -> None:
    record = SessionRecord(
        session=NewSession(id=SessionId("a"), pool="p", tenant="t", source="en", target="de"),
        state=SessionState.ACTIVE,
        received=BLOCK,
    )
    bench.take("a", record=record, audio=bytes(2 * BLOCK), segment=3, segment_text="once ", segment_start=800)
    bench.run()
    (segment,) = [
        data for commit in bench.of("a") for kind, data in commit.events if kind is SessionEventType.SEGMENT
    ]
    assert segment == {"segment": 3, "text": "once 1 2", "start_ms": 50, "end_ms": 100}


def test_a_lost_session_is_forgotten(bench: Bench) -> None:
    session = bench.take("a", seconds=0.5)
    bench.table.step(0.0)
    bench.table.add_news(SessionNews(session=session, stale=True), 0.0)
    written = len(bench.commits)
    bench.run()
    assert (len(bench.commits), len(bench.table), bench.model.opened) == (written, 0, {})


def test_a_growing_lag_makes_turns_longer_and_then_refuses(bench: Bench) -> None:
    bench.table.lag_rules = LagRules(limit_s=0.5, highest=4, raise_after_s=1, lower_after_s=2)
    session = bench.take("a", seconds=5)

    def measure(now: float) -> tuple[int, bool]:
        bench.table.measure(now, wall_ms=1e6)
        return bench.table.measured.latency_multiplier, bench.table.measured.full

    assert [measure(now) for now in (0, 1, 2, 3)] == [(1, False), (2, False), (4, False), (4, True)]
    degraded = [commit for commit in bench.of("a") if commit.latency_multiplier]
    assert [commit.latency_multiplier for commit in degraded] == [2, 4]
    assert degraded[0].events[0][0] is SessionEventType.DEGRADED
    assert degraded[0].events[0][1]["latency_multiplier"] == 2
    bench.run()
    assert len(bench.model.prefilled[1].audio) == 4 * BLOCK * 2  # prefilled[0] was ready before the lag grew
    assert [measure(now) for now in (10, 12, 14, 16)] == [(4, True), (4, False), (2, False), (1, False)]
    assert bench.of(session)[-1].latency_multiplier == 1


def test_turns_that_settings_make_longer_are_no_sign_of_lag(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.table.lag_rules = LagRules(limit_s=0.5, lowest=2, highest=4)
    bench.table.measure(0.0, wall_ms=1e6)
    assert (bench.table.measured.latency_multiplier, caplog.records) == (2, [])
    bench.take("a", seconds=5, multiplier=2)
    for now in (1.0, 2.0):
        bench.table.measure(now, wall_ms=1e6)
    assert "latency multiplier 4" in caplog.text


def test_no_turn_has_more_blocks_than_the_model_allows(bench: Bench) -> None:
    """Neither the client nor the settings can make a turn longer than ``max_turn_blocks``."""
    bench.model.shape = replace(bench.model.shape, max_turn_blocks=2)
    bench.table.lag_rules = LagRules(limit_s=0.5, highest=8, raise_after_s=1)
    session = bench.take("a", seconds=5, multiplier=8)
    reported = [commit.latency_multiplier for commit in bench.of(session) if commit.latency_multiplier]
    assert reported == [2]  # the client learns that it does not get what it has requested
    for now in range(4):
        bench.table.measure(now, wall_ms=1e6)
    assert (bench.table.measured.latency_multiplier, bench.table.measured.full) == (2, True)
    bench.run()
    assert {len(item.audio) for item in bench.model.prefilled} == {2 * BLOCK * 2}
    assert [commit.latency_multiplier for commit in bench.of(session) if commit.latency_multiplier] == [2]


def test_the_watchdog_sees_with_which_sessions_the_model_works() -> None:
    """The watchdog still sees these sessions after the model has ended the process."""
    bench = Bench()
    session = bench.take("a", seconds=0.48)
    bench.run()
    assert len(bench.worked_on) > 2
    assert bench.worked_on == [[session], []] * (len(bench.worked_on) // 2)
    bench.take("b", seconds=0.48)

    def die(_sessions: Sequence[str]) -> None:
        raise SystemExit

    bench.model._step = die
    with pytest.raises(SystemExit):
        bench.run()
    assert bench.worked_on[-1] == ["b"]
