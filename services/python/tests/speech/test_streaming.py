"""A streaming model with paged caches computes the same as a model that reads the whole stream at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from daybreak_server.workloads.sessions import PastTurn, Prefill, SessionFailedError, Token
from daybreak_server.workloads.speech.model import Speech
from testkit.speech_models import finish, loaded, noise, random_folder, speak, token, turns_of, whole_stream


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_folder(tmp_path_factory.mktemp("random"))


@pytest.fixture
def model(folder: Path) -> Speech:
    return loaded(folder, cache_mb=8)


def _ids(turns: list[list[Token]]) -> list[list[int]]:
    return [[each.token for each in turn if each.token is not None] for turn in turns]


class _Recorder:
    """Keeps the logits of each step of a model."""

    def __init__(self, model: Speech) -> None:
        self.logits: list[torch.Tensor] = []
        self._step = model._lm.step
        model._lm.step = self  # type: ignore[assignment,method-assign]

    def __call__(self, *arguments: Any) -> torch.Tensor:
        self.logits.append(self._step(*arguments))
        return self.logits[-1]


@pytest.mark.heavy
@pytest.mark.parametrize("blocks", [1, 2, 4])
def test_a_stream_equals_the_whole_computation_also_after_turns_have_left_the_window(
    model: Speech, blocks: int
) -> None:
    recorder = _Recorder(model)
    pair = model.shape.pairs[1]
    turns = turns_of(noise(0.48 * 4 * 10, seed=1), model, blocks)
    model.open("a", pair)
    texts, logits = [], []
    for turn in turns:
        recorder.logits.clear()
        written = finish(model, model.prefill([Prefill(session="a", audio=turn)]))["a"]
        texts.append([each.token for each in written if each.token is not None])
        logits.append(torch.cat(recorder.logits))
    assert model._sessions["a"].table.visible > 0, "no turn has left the window"
    expected = whole_stream(model, turns, texts, *model._vocabulary.marker(pair))
    for ours, theirs in zip(logits, expected, strict=True):
        torch.testing.assert_close(ours, theirs[: len(ours)], atol=2e-4, rtol=2e-4)


def test_sessions_of_a_batch_write_what_each_writes_alone(model: Speech) -> None:
    pairs, lengths = model.shape.pairs, [1, 2, 4, 3, 2]
    audio = [noise(0.48 * length * 6, seed=length + 10 * number) for number, length in enumerate(lengths)]
    alone = [
        _ids(speak(model, each, pairs[number % 2], blocks=lengths[number]))
        for number, each in enumerate(audio)
    ]
    together: dict[str, list[list[int]]] = {}
    for number in range(len(audio)):
        model.open(str(number), pairs[number % 2])
        together[str(number)] = []
    turns = [turns_of(each, model, lengths[number]) for number, each in enumerate(audio)]
    for at in range(6):
        batch = [
            Prefill(session=str(number), audio=turns[number][at], last=at == 5)
            for number in range(len(audio))
        ]
        for name, written in finish(model, model.prefill(batch)).items():
            together[name] += _ids([written])
    assert list(together.values()) == alone
    assert any(any(turn) for turn in alone), "the model wrote no token, so nothing was compared"


@pytest.mark.heavy
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_computes_what_the_gathered_pages_do(folder: Path) -> None:
    gather, flex = (loaded(folder, cache_mb=2, attention=name) for name in ("gather", "flex"))
    logits = []
    for model in (gather, flex):
        recorder = _Recorder(model)
        for number, name in enumerate("abc"):
            model.open(name, model.shape.pairs[number % 2])
        for at in range(4):
            batch = [
                Prefill(session=name, audio=noise(0.48 * (number + 1), seed=at))
                for number, name in enumerate("abc")
            ]
            finish(model, model.prefill(batch))
        logits.append(recorder.logits)
    assert len(logits[0]) == len(logits[1])
    for ours, theirs in zip(*logits, strict=True):
        torch.testing.assert_close(ours, theirs, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_the_language_model_computes_what_transformers_computes(tmp_path: Path, family: str) -> None:
    from transformers import AutoModelForCausalLM

    model = loaded(random_folder(tmp_path, family=family), cache_mb=2)
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "language_model", dtype=torch.float32).eval()
    tokens = [[3, 7, 12, 9, 30, 21, 5], [2, 8, 8, 17]]
    tables = [model._lm.table() for _ in tokens]
    for table in tables:
        table.begin_turn()
    model._lm.step(tables, [model._lm.embed(row[:-1]) for row in tokens])
    ours = model._lm.step(tables, [model._lm.embed(row[-1:]) for row in tokens])
    for row, logits in zip(tokens, ours, strict=True):
        with torch.inference_mode():
            expected = theirs(torch.tensor([row])).logits[0, -1]
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kept", [0, 1, 2])
def test_another_group_continues_a_session_in_the_middle_of_a_turn(folder: Path, kept: int) -> None:
    first, second = loaded(folder, cache_mb=4), loaded(folder, cache_mb=4)
    pair = first.shape.pairs[1]
    turns = turns_of(noise(0.96 * 12, seed=4), first)
    first.open("a", pair)
    texts = [
        _ids([finish(first, first.prefill([Prefill(session="a", audio=turn)]))["a"]])[0] for turn in turns
    ]
    cut = next(number for number in range(6, 12) if len(texts[number]) > kept)
    past = [
        PastTurn(audio=audio, tokens=tuple(text)) for audio, text in zip(turns[:cut], texts, strict=False)
    ]
    past.append(PastTurn(audio=turns[cut], tokens=tuple(texts[cut][:kept]), complete=False))
    second.open("a", pair, past)
    assert texts[cut][:kept] + _ids([finish(second, second.decode(["a"]))["a"]])[0] == texts[cut]
    for number in range(cut + 1, 12):
        assert _ids([finish(second, second.prefill([Prefill(session="a", audio=turns[number])]))["a"]]) == [
            texts[number]
        ]


def test_the_tokens_of_a_turn_are_bounded_and_all_of_them_are_fed(tmp_path: Path) -> None:
    model = loaded(random_folder(tmp_path, first_turn_tokens=3, more_turn_tokens=1), cache_mb=2)
    model._vocabulary.ends_turn = frozenset()
    model.open("a", model.shape.pairs[0])
    written = finish(model, model.prefill([Prefill(session="a", audio=noise(0.96, seed=1))]))["a"]
    assert len(written) == 4
    assert model._sessions["a"].table.end == 12 + 1 + 4


def test_a_wrong_item_of_a_batch_does_not_affect_the_others(model: Speech) -> None:
    pair, audio = model.shape.pairs[0], noise(0.96, seed=2)
    expected = _ids(speak(model, audio, pair))
    for name in ("good", "odd", "long", "busy"):
        model.open(name, pair)
    model._sessions["busy"].next = [5]
    batch = {
        "odd": audio[:-2],
        "long": audio * 5,
        "good": audio,
        "absent": audio,
        "busy": audio,
    }
    answers = model.prefill(
        [Prefill(session=name, audio=each, last=name == "good") for name, each in batch.items()]
    )
    messages = {name: str(answer) for name, answer in zip(batch, answers, strict=True) if name != "good"}
    assert all(isinstance(answer, SessionFailedError) for answer in [*answers[:2], *answers[3:]])
    assert "whole number of blocks" in messages["odd"]
    assert "10 blocks" in messages["long"]
    assert "not open" in messages["absent"]
    assert "has not ended" in messages["busy"]
    assert _ids([finish(model, [answers[2]])["good"]]) == expected
    assert isinstance(model.decode(["good"])[0], SessionFailedError), "decode ran after the end of the turn"
    assert token(model.prefill([Prefill(session="good", audio=audio)])[0]).session == "good"


def test_all_memory_is_reserved_at_once_and_returns(folder: Path) -> None:
    model = loaded(folder, cache_mb=1)
    used, reserved = model.memory()
    assert used == 0
    assert reserved <= 1_000_000
    names = [str(number) for number in range(model.shape.max_sessions)]
    for name in names:
        model.open(name, model.shape.pairs[0])
    with pytest.raises(SessionFailedError, match=f"all {len(names)} sessions"):
        model.open("one more", model.shape.pairs[0])
    assert model.shape.max_turn_blocks == 8
    longest = 8 * 2 * model.shape.block_samples
    model._vocabulary.ends_turn = frozenset()  # each session writes as much as it may
    for at in range(4):
        finish(model, model.prefill([Prefill(session=name, audio=noise(0.48 * 8, seed=1)) for name in names]))
        assert model.memory()[0] <= reserved, at
    finish(model, model.prefill([Prefill(session=name, audio=bytes(longest), last=True) for name in names]))
    assert model.memory()[1] == reserved
    for name in names:
        model.close(name)
        model.close(name)
    assert model.memory() == (0, reserved)


def test_a_session_that_cannot_be_opened_takes_nothing(model: Speech) -> None:
    pair = model.shape.pairs[0]
    audio = noise(0.48, seed=1)
    unknown = [PastTurn(audio=audio, tokens=(4000,))]
    too_many = [PastTurn(audio=audio, tokens=(5,) * 6)]
    open_end = [PastTurn(audio=audio, tokens=(5,), complete=False), PastTurn(audio=audio, tokens=())]
    for past in (unknown, too_many, open_end):
        with pytest.raises(SessionFailedError):
            model.open("a", pair, past)
    assert model.memory()[0] == 0
    model.open("a", pair)
    with pytest.raises(SessionFailedError, match="open already"):
        model.open("a", pair)
    with pytest.raises(SessionFailedError, match="does not translate"):
        model.open("b", type(pair)(source="de", target="en", source_name="German", target_name="English"))
