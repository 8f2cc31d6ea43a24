"""Tests of batches that prefill and decode. A limit of tokens bounds each batch, so a long turn is read in pieces."""

from __future__ import annotations

import pytest

from daybreak_server.batching.iterations import (
    Batch,
    BatchStrategy,
    Choice,
    IterationRules,
    Phase,
    Scheduler,
    Strategy,
    Waiting,
    WrongChoiceError,
)

BLOCK_TOKENS = 4


def chunked(tokens: int, **rules: int) -> Scheduler[str]:
    return Scheduler(
        IterationRules(strategy=Strategy.MIXED, max_batch_tokens=tokens, **rules), block_tokens=BLOCK_TOKENS
    )


def run(scheduler: Scheduler[str], now: float, continuing: str = "") -> Batch[str]:
    """Run the next batch. Each session of ``continuing`` wants another token after this batch."""
    batch = scheduler.next(now)
    assert isinstance(batch, Batch)
    for session in continuing:
        scheduler.decode_ready(session, now)
    scheduler.complete(batch, now)
    return batch


def read(batch: Batch[str]) -> dict[str, int]:
    """How many blocks of each session a batch reads."""
    return dict(zip(batch.prefill, batch.blocks, strict=True))


def test_a_long_turn_is_read_in_pieces_beside_the_decodes() -> None:
    """In each batch the other sessions get a token. The long turn's session gets its first token in the last batch."""
    scheduler = chunked(10)
    scheduler.decode_ready("a", 0.0)
    scheduler.decode_ready("b", 0.0)
    scheduler.prefill_ready("long", 0.0, seconds=5.0, blocks=5)
    batches = [run(scheduler, 0.0, "ab"), run(scheduler, 0.0, "ab"), run(scheduler, 0.0, "ab")]
    assert [read(batch) for batch in batches] == [{"long": 2}, {"long": 2}, {"long": 1}]
    assert [batch.decode for batch in batches] == [("a", "b")] * 3
    assert [batch.unfinished for batch in batches] == [("long",), ("long",), ()]
    records = list(scheduler.history)
    assert [(record.phase, record.blocks, record.audio_s, record.tokens) for record in records] == [
        (Phase.MIXED, (2,), 2.0, 2),
        (Phase.MIXED, (2,), 2.0, 2),
        (Phase.MIXED, (1,), 1.0, 3),
    ]
    assert [record.unfinished for record in records] == [("long",), ("long",), ()]


def test_a_turn_that_was_begun_is_read_before_the_next_ones() -> None:
    """At most one turn is partly read at a time, and turns are read in the order in which they became ready."""
    scheduler = chunked(3 * BLOCK_TOKENS)
    for session, blocks in (("a", 1), ("b", 4), ("c", 2)):
        scheduler.prefill_ready(session, 0.0, seconds=1.0, blocks=blocks)
    assert read(run(scheduler, 0.0)) == {"a": 1, "b": 2}
    scheduler.prefill_ready("d", 1.0, seconds=1.0, blocks=9)
    assert read(run(scheduler, 1.0)) == {"b": 2, "c": 1}
    assert read(run(scheduler, 2.0)) == {"c": 1, "d": 2}


def test_one_block_is_read_however_many_sessions_decode() -> None:
    """If decodes took all tokens of a batch, a new turn would wait until other sessions had ended their turns."""
    scheduler = chunked(6)
    for session in "abcdefgh":
        scheduler.decode_ready(session, 0.0)
    scheduler.prefill_ready("new", 0.0, seconds=1.0, blocks=2)
    first, second = run(scheduler, 0.0, "ab"), run(scheduler, 0.0, "cd")
    assert (read(first), first.decode) == ({"new": 1}, ("a", "b"))
    assert (read(second), second.decode) == ({"new": 1}, ("c", "d"))
    assert run(scheduler, 0.0).decode == tuple("efghab"), "without a turn to read, all tokens are for decodes"


def test_a_limit_below_a_block_still_lets_both_phases_run() -> None:
    scheduler = chunked(1)
    scheduler.decode_ready("a", 0.0)
    scheduler.prefill_ready("new", 0.0, seconds=1.0, blocks=2)
    batch = run(scheduler, 0.0, "a")
    assert (read(batch), batch.decode) == ({"new": 1}, ("a",))


def test_the_phases_take_turns_if_a_batch_has_one_place() -> None:
    scheduler = chunked(40, max_batch_size=1)
    scheduler.decode_ready("a", 0.0)
    scheduler.prefill_ready("b", 0.0, seconds=1.0)
    scheduler.prefill_ready("c", 0.0, seconds=1.0)
    assert [run(scheduler, 0.0, continuing).sessions for continuing in ("a", "", "a", "")] == [
        ("a",),
        ("b",),
        ("a",),
        ("c",),
    ]


def test_without_a_limit_a_turn_is_read_at_once() -> None:
    """If the limit changes in the middle of a turn, the rest of the turn is read under the new rules."""
    scheduler = chunked(BLOCK_TOKENS + 1)
    scheduler.prefill_ready("a", 0.0, seconds=4.0, blocks=4)
    assert read(run(scheduler, 0.0)) == {"a": 1}
    scheduler.rules = IterationRules()
    batch = run(scheduler, 0.0, "a")
    assert (read(batch), batch.audio_s, batch.unfinished) == ({"a": 3}, 3.0, ())
    assert run(scheduler, 0.0).decode == ("a",)


def test_a_model_that_reads_whole_turns_gets_whole_turns() -> None:
    """The limit of tokens does not split the turns of such a model."""
    scheduler: Scheduler[str] = Scheduler(IterationRules(strategy=Strategy.MIXED, max_batch_tokens=1))
    scheduler.prefill_ready("a", 0.0, seconds=4.0, blocks=4)
    assert read(run(scheduler, 0.0)) == {"a": 4}


def test_a_session_that_is_forgotten_in_the_middle_of_its_turn_is_gone() -> None:
    """The session may be forgotten while a piece of the turn runs, or while the turn waits for its next piece.

    A new session of the same name starts from the beginning.
    """
    scheduler = chunked(BLOCK_TOKENS)
    scheduler.prefill_ready("a", 0.0, seconds=4.0, blocks=4)
    batch = scheduler.next(0.0)
    assert isinstance(batch, Batch)
    assert scheduler.forget("a")
    scheduler.complete(batch, 0.0)
    assert scheduler.next(0.0) is None
    scheduler.prefill_ready("a", 0.0, seconds=1.0, blocks=2)
    assert [run(scheduler, 0.0).unfinished, scheduler.forget("a")] == [("a",), True]
    assert scheduler.next(0.0) is None


def test_a_turn_that_is_read_in_part_cannot_decode() -> None:
    """A session whose turn has been read in part has no token to continue from."""
    scheduler = chunked(BLOCK_TOKENS)
    scheduler.prefill_ready("a", 0.0, seconds=4.0, blocks=4)
    scheduler.next(0.0)
    with pytest.raises(ValueError, match="a part of its turn is left"):
        scheduler.decode_ready("a", 0.0)


class Chooses(BatchStrategy[str]):
    """Chooses ``blocks`` of the first session that waits for prefill."""

    blocks: tuple[int, ...] = ()

    def choose(self, waiting: Waiting[str], rules: IterationRules, now: float) -> Choice[str]:
        return Choice(prefill=waiting.prefill.first(1), blocks=self.blocks)


@pytest.mark.parametrize(
    ("blocks", "block_tokens", "message"),
    [
        ((0,), 4, "0 blocks of a turn of 'a', which has 3 to read"),
        ((4,), 4, "4 blocks of a turn of 'a', which has 3 to read"),
        ((1, 1), 4, "blocks for 2 turns, but 1 turns"),
        ((2,), 0, "the model reads turns only as a whole"),
    ],
)
def test_a_wrong_piece_names_the_strategy(
    monkeypatch: pytest.MonkeyPatch, blocks: tuple[int, ...], block_tokens: int, message: str
) -> None:
    monkeypatch.setattr(Chooses, "blocks", blocks)
    rules = IterationRules(strategy=f"{__name__}:{Chooses.__name__}")
    scheduler: Scheduler[str] = Scheduler(rules, block_tokens=block_tokens)
    scheduler.prefill_ready("a", 0.0, seconds=3.0, blocks=3)
    with pytest.raises(WrongChoiceError, match=f"Chooses.*{message}"):
        scheduler.next(0.0)
