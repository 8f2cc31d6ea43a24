"""If batches have a limit of tokens, a group reads long turns in pieces. It writes the same text as without a limit."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daybreak_server.batching.iterations import IterationRules, Phase, Strategy
from daybreak_server.domain.sessions import SessionEnd, SessionNews
from daybreak_server.workloads.base import Group
from daybreak_server.workloads.sessions import Prefill, SessionFailedError, StepResult, Token
from daybreak_server.workloads.simulated_speech.model import SimulatedSpeech
from tests.engines.sessions.test_session_table import Bench, Counting

BLOCK_TOKENS = 6
Before = Callable[[Sequence[Prefill], Sequence[str]], None]


class Observed(SimulatedSpeech):
    """The simulated model. ``before`` gets the input of each step, and may raise."""

    def __init__(self, before: Before | None = None) -> None:
        super().__init__(sleep=lambda _seconds: None)
        self.load(Group(options={"block_tokens": BLOCK_TOKENS}))
        self.prefilled: list[Prefill] = []
        self._before = before

    def step(
        self, prefill: Sequence[Prefill], decode: Sequence[str]
    ) -> tuple[Sequence[StepResult], Sequence[StepResult]]:
        if self._before is not None:
            self._before(prefill, decode)
        self.prefilled += prefill
        return super().step(prefill, decode)


class Deaf(SimulatedSpeech):
    """A model that overrides ``prefill`` but not ``step``."""

    def prefill(self, batch: Sequence[Prefill]) -> Sequence[Token | SessionFailedError]:
        return [SessionFailedError("heard nothing") for _ in batch]


@pytest.mark.parametrize("strategy", [Strategy.ITERATION, Strategy.MIXED])
def test_a_subclass_that_overrides_one_phase_is_called(strategy: Strategy) -> None:
    bench = Bench(Deaf(sleep=lambda _seconds: None), IterationRules(strategy=strategy, max_batch_tokens=12))
    bench.take("a", audio=speech(2), input_ended=True)
    bench.run()
    assert bench.of("a")[-1].end is SessionEnd.FAILED


def chunked(blocks: int, before: Before | None = None) -> Bench:
    """A bench whose group reads at most ``blocks`` blocks of audio in a batch."""
    rules = IterationRules(strategy=Strategy.MIXED, max_batch_tokens=blocks * BLOCK_TOKENS)
    return Bench(Observed(before), rules)


def speech(blocks: float, seed: int = 0) -> bytes:
    return random.Random(seed).randbytes(int(blocks * 7680) * 2)


def written(bench: Bench, streams: Sequence[bytes], multipliers: Sequence[int]) -> list[tuple[str, object]]:
    """Serve one session for each stream. :returns: the text and the end of each session."""
    for number, (audio, multiplier) in enumerate(zip(streams, multipliers, strict=True)):
        bench.take(str(number), audio=audio, input_ended=True, multiplier=multiplier)
    bench.run()
    assert len(bench.table) == 0
    return [(bench.text(str(number)), bench.of(str(number))[-1].end) for number in range(len(streams))]


@settings(max_examples=40, deadline=None)
@given(
    blocks=st.integers(1, 6),
    sessions=st.lists(st.tuples(st.floats(0.1, 9), st.integers(1, 5)), min_size=1, max_size=6),
)
def test_the_text_is_that_of_whole_turns(blocks: int, sessions: list[tuple[float, int]]) -> None:
    """For any lengths of turns and any other sessions in the batches, the limit does not change the text."""
    streams = [speech(length, seed) for seed, (length, _) in enumerate(sessions)]
    multipliers = [multiplier for _, multiplier in sessions]
    whole = written(Bench(Observed()), streams, multipliers)
    bench = chunked(blocks)
    assert written(bench, streams, multipliers) == whole
    assert all(end is SessionEnd.FINISHED for _, end in whole)
    for record in bench.table.scheduler.history:
        tokens = BLOCK_TOKENS * sum(record.blocks) + len(record.decode)
        assert tokens <= max(blocks * BLOCK_TOKENS, BLOCK_TOKENS + 1)
        assert record.audio_s <= 0.48 * sum(record.blocks) + 1e-9


def test_each_piece_has_its_own_audio() -> None:
    """The pieces come in order. All but the last have whole blocks, and only the last ends the input."""
    bench, audio = chunked(2), speech(4.5)
    bench.take("a", audio=audio, input_ended=True, multiplier=5)
    bench.run()
    pieces = bench.model.prefilled
    assert b"".join(piece.audio for piece in pieces) == audio
    assert [len(piece.audio) / (7680 * 2) for piece in pieces] == [2, 2, 0.5]
    assert [(piece.unfinished, piece.last) for piece in pieces] == [
        (True, False),
        (True, False),
        (False, True),
    ]
    records = [
        (record.phase, record.blocks, record.unfinished, record.tokens)
        for record in bench.table.scheduler.history
    ]
    assert records[:3] == [
        (Phase.PREFILL, (2,), ("a",), 0),
        (Phase.PREFILL, (2,), ("a",), 0),
        (Phase.PREFILL, (1,), (), 1),
    ]


def test_the_others_get_a_token_between_two_pieces() -> None:
    """If a long turn were read in one piece, the other sessions would get their tokens later."""
    bench = chunked(1)
    bench.take("writes", audio=speech(1, seed=3))
    bench.table.step(0.0)
    bench.take("long", audio=speech(4), multiplier=4)
    bench.run()
    pieces = [record for record in bench.table.scheduler.history if "long" in record.prefill]
    assert [record.number for record in pieces] == [1, 2, 3, 4]
    assert sum("writes" in record.decode for record in pieces) >= 2


def test_nothing_is_written_before_the_last_piece() -> None:
    """The group commits nothing before the last piece of a turn. If the group is lost before that, another group reads
    the whole turn again from the journal. If audio arrives while pieces of a turn are still unread, it belongs to the
    next turn."""
    bench = chunked(1)
    session = bench.take("a", audio=speech(3), multiplier=3)
    bench.table.step(0.0)
    bench.table.add_news(SessionNews(session=session, audio=speech(1, seed=1), input_ended=True), 0.0)
    bench.table.step(0.0)
    assert bench.commits == []
    bench.run()
    turns = [commit.turn for commit in bench.of("a") if commit.turn is not None and commit.turn.complete]
    assert [(turn.start, turn.end, turn.last) for turn in turns] == [
        (0, 3 * 7680, False),
        (3 * 7680, 4 * 7680, True),
    ]


def test_a_session_that_fails_in_the_middle_of_its_turn_fails_alone() -> None:
    """The step is repeated for each session alone, and the other sessions write the same text as without a failure."""

    def breaks(prefill: Sequence[Prefill], decode: Sequence[str]) -> None:
        if any(piece.session == "0" and not piece.unfinished for piece in prefill):
            raise RuntimeError("the device is on fire")

    streams = [speech(4, seed) for seed in range(3)]
    whole = written(Bench(Observed()), streams, [4, 1, 1])
    (_, ended), *others = written(chunked(3, breaks), streams, [4, 1, 1])
    assert ended is SessionEnd.FAILED
    assert others == whole[1:]


def test_a_session_that_leaves_in_the_middle_of_its_turn_is_forgotten() -> None:
    bench = chunked(1)
    session = bench.take("a", audio=speech(4), multiplier=4)
    bench.table.step(0.0)
    bench.table.add_news(SessionNews(session=session, stale=True), 0.0)
    bench.run()
    assert (len(bench.table), len(bench.model.prefilled), bench.commits) == (0, 1, [])


def test_a_model_without_mixed_steps_reads_whole_turns() -> None:
    """The limit has no effect on such a model."""
    rules = IterationRules(strategy=Strategy.MIXED, max_batch_tokens=1)
    bench = Bench(Counting(), rules)
    bench.take("a", seconds=0.4, multiplier=4)
    bench.run()
    assert [len(piece.audio) for piece in bench.model.prefilled] == [4 * 1600 * 2]


@pytest.mark.parametrize(
    ("prefill", "decode", "expected_ms"),
    [([2], 0, 3.0 + 2 * 0.5), ([], 4, 1.0 + 4 * 0.25), ([1, 2], 4, 3.0 + 3 * 0.5 + 4 * 0.25)],
)
def test_the_simulated_model_takes_its_own_cost_once_in_a_step(
    prefill: list[int], decode: int, expected_ms: float
) -> None:
    """A step takes one fixed time: that of its phase, or the longer of the two if it has both phases. The time of each
    block and each token is added. So a turn that is read in three steps takes the fixed time three times."""
    slept: list[float] = []
    model = SimulatedSpeech(sleep=slept.append)
    costs = {"prefill_ms": 3.0, "prefill_item_ms": 0.5, "decode_ms": 1.0, "decode_item_ms": 0.25}
    model.load(Group(options=costs))
    items = [Prefill(session=f"p{number}", audio=speech(blocks)) for number, blocks in enumerate(prefill)]
    model.step(items, [f"d{number}" for number in range(decode)])
    assert slept == [pytest.approx(expected_ms / 1000)]


def test_the_simulated_model_refuses_a_piece_that_has_a_part_of_a_block() -> None:
    model = Observed()
    model.open("a", model.shape.pairs[0])
    pieces = [(speech(1.5), True), (speech(1), False)]
    answers = [
        model.step([Prefill(session="a", audio=audio, unfinished=unfinished)], ())[0][0]
        for audio, unfinished in pieces
    ]
    assert isinstance(answers[0], SessionFailedError)
    assert not isinstance(answers[1], SessionFailedError)
