"""Tests of the trained speech model on the package's clips.

The sentences and voices of the clips were not in the training data.
"""

from __future__ import annotations

import wave

import pytest
import torch

from daybreak_server.workloads.sessions import PastTurn, Prefill
from daybreak_server.workloads.speech.clips import Clip, clips
from daybreak_server.workloads.speech.model import Speech
from daybreak_server.workloads.speech.spec import SPEC, TINY
from testkit.speech_models import finish, loaded, pcm, speak, turns_of

CLIPS = clips()


@pytest.fixture(scope="module")
def model() -> Speech:
    return loaded()


def _text(turns: list[list[str]]) -> str:
    return "".join(part for turn in turns for part in turn)


def _written(model: Speech, audio: bytes, target: str, *, blocks: int = 2) -> str:
    pair = next(pair for pair in model.shape.pairs if pair.target == target)
    return _text([[token.text for token in turn] for turn in speak(model, audio, pair, blocks=blocks)])


def test_the_spec_knows_the_pairs_of_the_model(model: Speech) -> None:
    assert tuple(SPEC.pairs({})) == model.shape.pairs
    assert [(pair.source, pair.target) for pair in model.shape.pairs] == [
        ("en", "de"),
        ("en", "zh"),
        ("en", "en"),
    ]
    assert SPEC.pairs({"model": "/no/such/folder"}) == ()


def test_the_model_is_small() -> None:
    assert sum(file.stat().st_size for file in TINY.rglob("*") if file.is_file()) <= 8_000_000


@pytest.mark.parametrize("target", ["en", "de", "zh"])
@pytest.mark.parametrize("clip", CLIPS, ids=[clip.path.stem for clip in CLIPS])
def test_each_clip_is_translated(model: Speech, clip: Clip, target: str) -> None:
    assert _written(model, clip.audio(), target) == clip.references[target]


def test_the_longest_turns_lose_no_words(model: Speech) -> None:
    longest = model.shape.max_turn_blocks
    assert longest is not None
    assert loaded(max_turn_blocks=2).shape.max_turn_blocks == 2
    for clip in CLIPS:
        assert _written(model, clip.audio(), "de", blocks=longest) == clip.references["de"]


def test_a_sentence_is_written_while_it_is_spoken(model: Speech) -> None:
    clip, pair = CLIPS[0], model.shape.pairs[0]
    turns = speak(model, clip.audio(), pair, blocks=1)
    with_text = [number for number, turn in enumerate(turns) if turn]
    assert len(with_text) >= 4
    assert [token.ends_segment for turn in turns for token in turn][-1]
    assert sum(token.ends_segment for turn in turns for token in turn) == 1


def test_sessions_in_one_batch_write_what_each_writes_alone(model: Speech) -> None:
    wanted = {
        f"{number}-{pair.target}": (clip, pair)
        for number, clip in enumerate(CLIPS)
        for pair in model.shape.pairs
    }
    parts: dict[str, list[list[str]]] = {name: [] for name in wanted}
    turns = {name: turns_of(clip.audio(), model) for name, (clip, _) in wanted.items()}
    for name, (_, pair) in wanted.items():
        model.open(name, pair)
    for at in range(max(map(len, turns.values()))):
        batch = [
            Prefill(session=name, audio=audio[at], last=at == len(audio) - 1)
            for name, audio in turns.items()
            if at < len(audio)
        ]
        for name, tokens in finish(model, model.prefill(batch)).items():
            parts[name].append([token.text for token in tokens])
    for name in wanted:
        model.close(name)
    assert {name: _text(parts[name]) for name in wanted} == {
        name: clip.references[pair.target] for name, (clip, pair) in wanted.items()
    }
    assert model.memory()[0] == 0


@pytest.mark.parametrize("sound", ["silence", "faint noise", "loud noise"])
def test_nothing_is_written_when_nobody_speaks(model: Speech, sound: str) -> None:
    level = {"silence": 0.0, "faint noise": 1e-3, "loud noise": 0.1}[sound]
    samples = torch.randn(20 * 16_000, generator=torch.Generator().manual_seed(3)) * level
    for target in ("en", "de", "zh"):
        assert _written(model, pcm(samples), target) == ""


@pytest.mark.heavy
@pytest.mark.timeout(1800)
def test_thirty_minutes_in_one_session_stay_right_in_the_same_memory(model: Speech) -> None:
    pair = next(pair for pair in model.shape.pairs if pair.target == "zh")
    pause = bytes(32_000 // 2)
    round_of_clips = b"".join(clip.audio() + pause for clip in CLIPS)
    repeats = 1800 * 32_000 // len(round_of_clips) + 1
    model.open("long", pair)
    text, used = [], []
    turns = turns_of(round_of_clips * repeats, model)
    for number, turn in enumerate(turns):
        answers = model.prefill([Prefill(session="long", audio=turn, last=number == len(turns) - 1)])
        text.append([token.text for token in finish(model, answers)["long"]])
        used.append(model.memory()[0])
    assert model._sessions["long"].table.end > 100 * 128
    model.close("long")
    sentences = _text(text).split("。")[:-1]
    wanted = [clip.references["zh"].rstrip("。") for clip in CLIPS] * repeats
    right = sum(written == reference for written, reference in zip(sentences, wanted, strict=True))
    assert right >= 0.95 * len(wanted), f"{right} of {len(wanted)} sentences are right"
    assert max(used[10:]) <= max(used[:40]) + 3 * model._lm.memory.bytes_per_page


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_another_group_continues_in_the_middle_of_a_turn(model: Speech, kept: int) -> None:
    other, pair = loaded(cache_mb=4), model.shape.pairs[0]
    turns = turns_of(CLIPS[1].audio() + CLIPS[2].audio(), model)
    expected = [[token.token or 0 for token in turn] for turn in speak(model, b"".join(turns), pair)]
    cut = next(number for number in range(4, len(turns)) if len(expected[number]) > kept)
    past = [
        PastTurn(audio=turn, tokens=tuple(text)) for turn, text in zip(turns[:cut], expected, strict=False)
    ]
    other.open(
        "a", pair, [*past, PastTurn(audio=turns[cut], tokens=tuple(expected[cut][:kept]), complete=False)]
    )
    answers = other.decode(["a"])
    continued = [expected[cut][:kept] + [token.token or 0 for token in finish(other, answers)["a"]]]
    for number in range(cut + 1, len(turns)):
        answers = other.prefill([Prefill(session="a", audio=turns[number], last=number == len(turns) - 1)])
        continued.append([token.token or 0 for token in finish(other, answers)["a"]])
    assert continued == expected[cut:]


@pytest.mark.heavy
def test_transformers_reads_the_language_model(model: Speech) -> None:
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(TINY / "language_model", dtype=torch.float32).eval()
    tokens = torch.tensor([[3, 20, 31, 44, 7]])
    with torch.inference_mode():
        expected = theirs(tokens).logits
        starts = torch.zeros_like(tokens)
        lm = model._parts.language_model
        torch.testing.assert_close(lm(lm.embed(tokens), starts), expected, atol=1e-4, rtol=1e-4)


def test_a_clip_has_one_channel_of_16_bits_at_16_khz() -> None:

    for clip in CLIPS:
        with wave.open(str(clip.path)) as file:
            assert (file.getframerate(), file.getsampwidth(), file.getnchannels()) == (16_000, 2, 1)
        assert clip.path.stat().st_size < 300_000
