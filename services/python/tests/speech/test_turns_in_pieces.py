"""A turn gets the same tokens whether it is read in one piece, or in several pieces while other sessions decode."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from daybreak_server.workloads.sessions import Prefill, SessionFailedError, StepResult, Token
from daybreak_server.workloads.speech.clips import clips
from daybreak_server.workloads.speech.model import Speech
from testkit.hub_speech_folders import hub_folder
from testkit.speech_models import finish, loaded, noise, random_folder, speak, token, turns_of

Written = dict[str, list[list[int]]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_folder(tmp_path_factory.mktemp("random"))


def cut(model: Speech, name: str, audio: bytes, draw: random.Random, *, last: bool) -> list[Prefill]:
    """A turn in pieces of one or more blocks."""
    size = model.shape.block_samples * 2
    blocks = [audio[at : at + size] for at in range(0, len(audio), size)] or [b""]
    pieces: list[list[bytes]] = [[]]
    for block in blocks:
        if pieces[-1] and draw.random() < 0.6:
            pieces.append([])
        pieces[-1].append(block)
    return [
        Prefill(
            session=name,
            audio=b"".join(piece),
            last=last and number == len(pieces),
            unfinished=number < len(pieces),
        )
        for number, piece in enumerate(pieces, start=1)
    ]


def serve(model: Speech, turns: dict[str, list[bytes]], draw: random.Random) -> Written:
    """Serve all sessions at once. In each batch, some sessions read a piece of a turn, and others decode."""
    pieces = {
        name: [
            piece
            for number, audio in enumerate(each, start=1)
            for piece in cut(model, name, audio, draw, last=number == len(each))
        ]
        for name, each in turns.items()
    }
    written: Written = {name: [[]] for name in turns}
    writing: set[str] = set()
    mixed = 0
    while writing or any(pieces.values()):
        reads = [name for name in turns if pieces[name] and name not in writing and draw.random() < 0.7]
        decodes = [name for name in sorted(writing) if draw.random() < 0.7]
        answers = model.step([pieces[name].pop(0) for name in reads], decodes)
        mixed += bool(reads and decodes)
        for name, answer in zip([*reads, *decodes], [*answers[0], *answers[1]], strict=True):
            note(written[name], answer)
            (writing.add if answer is not None and token_of(answer) is not None else writing.discard)(name)
    assert mixed, "no batch had both phases"
    return {name: each[:-1] for name, each in written.items()}


def note(turns: list[list[int]], answer: StepResult) -> None:
    """Add the token of an answer to the last of these turns. If the answer ends this turn, begin the next one."""
    if answer is None:
        return
    found = token_of(answer)
    if found is None:
        turns.append([])
    else:
        turns[-1].append(found)


def token_of(answer: Token | SessionFailedError) -> int | None:
    return token(answer).token


def whole(model: Speech, audio: bytes, pair: int, blocks: int) -> list[list[int]]:
    """The tokens of each turn if the session is alone and the model reads each turn in one piece."""
    turns = speak(model, audio, model.shape.pairs[pair], blocks=blocks)
    return [[each.token for each in turn if each.token is not None] for turn in turns]


def compare(model: Speech, streams: Sequence[tuple[bytes, int]], seed: int) -> None:
    """Check that sessions that share batches, with turns in pieces, get the same tokens as each session alone.

    :param streams: the audio of each session, and how many blocks each of its turns has.
    """
    pairs = len(model.shape.pairs)
    expected = {
        str(number): whole(model, audio, number % pairs, blocks)
        for number, (audio, blocks) in enumerate(streams)
    }
    for number in range(len(streams)):
        model.open(str(number), model.shape.pairs[number % pairs])
    turns = {str(number): turns_of(audio, model, blocks) for number, (audio, blocks) in enumerate(streams)}
    assert serve(model, turns, random.Random(seed)) == expected
    assert any(any(each) for each in expected.values()), "the model wrote no token, so nothing was compared"
    for name in turns:
        model.close(name)
    assert model.memory()[0] == 0


@pytest.mark.heavy
def test_any_cuts_give_the_same_tokens_in_batches_of_both_phases(folder: Path) -> None:
    model = loaded(folder, cache_mb=4)
    streams = [
        (noise(0.48 * blocks * turns, seed=blocks), blocks)
        for blocks, turns in ((4, 5), (8, 3), (3, 6), (1, 9))
    ]
    for seed in range(4):
        compare(model, streams, seed)


@pytest.mark.heavy
@pytest.mark.parametrize("kind", ["layer", "whisper"])
def test_the_encoders_of_transformers_give_the_same_tokens(tmp_path: Path, kind: str) -> None:
    """These encoders read each block with the audio before it, wherever the turn was cut."""
    hub_folder(tmp_path, kind)
    model = loaded(tmp_path, cache_mb=4)
    streams = [(noise(0.96 * turns, seed=turns), blocks) for turns, blocks in ((6, 2), (6, 3), (4, 4))]
    compare(model, streams, seed=1)


def test_the_trained_model_translates_the_same() -> None:
    """Turns last 1.92 s, as they do when a group falls behind."""
    compare(loaded(cache_mb=8), [(clip.audio(), 4) for clip in clips()], seed=7)


@pytest.mark.parametrize("attention", ["gather", "flex"])
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_the_logits_after_the_last_piece_are_those_of_the_whole_turn(folder: Path, attention: str) -> None:
    """The pieces run beside a session that decodes."""
    model = loaded(folder, cache_mb=1, attention=attention)
    logits: list[torch.Tensor] = []
    step = model._lm.step

    def recording(tables: list[object], new: list[torch.Tensor]) -> torch.Tensor:
        logits.append(step(tables, new))  # type: ignore[arg-type]
        return logits[-1]

    model._lm.step = recording  # type: ignore[assignment,method-assign]
    for name in "abc":
        model.open(name, model.shape.pairs[0])
    audio, size = noise(0.48 * 4, seed=3), model.shape.block_samples * 2
    model._vocabulary.ends_turn = frozenset()
    model.prefill([Prefill(session="c", audio=noise(0.48, seed=4))])
    model.step([Prefill(session="a", audio=audio[:size], unfinished=True)], ["c"])
    model.step([Prefill(session="a", audio=audio[size : 3 * size], unfinished=True)], ["c"])
    model.step([Prefill(session="a", audio=audio[3 * size :])], ["c"])
    model.prefill([Prefill(session="b", audio=audio)])
    torch.testing.assert_close(logits[-2][0], logits[-1][0], atol=1e-5, rtol=1e-5)


def test_the_bound_of_a_turn_counts_the_blocks_of_all_of_its_pieces(folder: Path) -> None:
    model = loaded(folder, cache_mb=4)
    block = noise(0.48, seed=1)
    for name in ("a", "b"):
        model.open(name, model.shape.pairs[0])
    model._vocabulary.ends_turn = frozenset()
    for _ in range(3):
        assert model.step([Prefill(session="a", audio=block, unfinished=True)], ())[0] == [None]
    assert isinstance(model.decode(["a"])[0], SessionFailedError), "its turn has no token yet"
    assert len(finish(model, model.prefill([Prefill(session="a", audio=block)]))["a"]) == 5 + 3 * 2
    for _ in range(8):
        assert model.step([Prefill(session="b", audio=block, unfinished=True)], ())[0] == [None]
    (refused,) = model.prefill([Prefill(session="b", audio=block)])
    assert "9 blocks" in str(refused)
