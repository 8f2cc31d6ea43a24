"""Tests of models from folders in Hugging Face's layout. The outputs are compared with those of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn

from daybreak_server.workloads.base import ModelMissingError
from daybreak_server.workloads.sessions import PastTurn, Prefill
from testkit.hub_speech_folders import LEFT, SAMPLES, STACK, hub_folder
from testkit.speech_models import finish, loaded, noise


def _expected(encoder: Any, adapter: nn.Module, kind: str, window: torch.Tensor) -> torch.Tensor:
    """The embeddings of the newest block, computed with the feature extractor and the encoder of transformers."""
    with torch.inference_mode():
        if kind == "whisper":
            extractor = transformers.WhisperFeatureExtractor()
            features = extractor(
                window[:, 80:].numpy()[0], sampling_rate=16_000, return_tensors="pt"
            ).input_features
            states = encoder(features).last_hidden_state[:, : (LEFT + 1) * SAMPLES // 320]
        else:
            extractor = transformers.Wav2Vec2FeatureExtractor(do_normalize=kind == "layer")
            values = extractor(window.numpy()[0], sampling_rate=16_000, return_tensors="pt").input_values
            states = encoder(values).last_hidden_state
            assert states.shape[1] == (LEFT + 1) * SAMPLES // 320
        newest = states[:, -SAMPLES // 320 :]
        embeddings: torch.Tensor = adapter(newest.reshape(1, -1, STACK * 32))
    return embeddings


@pytest.mark.parametrize("kind", ["group", "layer", "whisper"])
def test_an_encoder_of_transformers_computes_each_block_with_the_audio_before_it(
    tmp_path: Path, kind: str
) -> None:
    encoder, adapter = hub_folder(tmp_path, kind)
    model = loaded(tmp_path, cache_mb=2)
    audio = torch.randn(2, 5 * SAMPLES, generator=torch.Generator().manual_seed(1)) * 0.1
    for slot in (0, 1):
        model._encoder.reset(slot)
    for block in range(5):
        ours = model._encoder.encode([1, 0], audio[:, block * SAMPLES : (block + 1) * SAMPLES])
        before = torch.nn.functional.pad(audio, (LEFT * SAMPLES + 80, 0))
        for row in (0, 1):
            window = before[row : row + 1, block * SAMPLES : (block + 1 + LEFT) * SAMPLES + 80]
            expected = _expected(encoder, adapter, kind, window)
            torch.testing.assert_close(ours[row : row + 1], expected, atol=1e-4, rtol=1e-4)


def test_a_folder_of_transformers_serves_sessions_and_continues_them_elsewhere(tmp_path: Path) -> None:
    hub_folder(tmp_path, "layer")
    first, second = (loaded(tmp_path, cache_mb=4) for _ in range(2))
    first.warm_up()
    pair = first.shape.pairs[1]
    assert (pair.source_name, pair.target_name) == ("English", "German")
    assert first._vocabulary.marker(pair) != first._vocabulary.marker(first.shape.pairs[0])
    turns = [noise(0.96, seed=number) for number in range(6)]
    first.open("a", pair)
    texts = []
    for number, turn in enumerate(turns):
        written = finish(first, first.prefill([Prefill(session="a", audio=turn, last=number == 5)]))["a"]
        texts.append(tuple(each.token for each in written if each.token is not None))
        assert len(written) <= 6 + 3 * 2
    assert any(texts[4])
    past = [PastTurn(audio=turn, tokens=text) for turn, text in zip(turns[:4], texts, strict=False)]
    second.open("a", pair, [*past, PastTurn(audio=turns[4], tokens=texts[4][:1], complete=False)])
    rest = finish(second, second.decode(["a"]))["a"]
    assert texts[4][:1] + tuple(each.token for each in rest if each.token is not None) == texts[4]


def test_a_character_of_several_tokens_is_written_with_its_last_byte(tmp_path: Path) -> None:
    hub_folder(tmp_path, "layer")
    vocabulary = loaded(tmp_path, cache_mb=2)._vocabulary
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "language_model")
    tokens = tokenizer.encode("grün 圆形。", add_special_tokens=False)
    parts = [vocabulary.text(tuple(tokens[max(0, at - 8) : at]), token) for at, token in enumerate(tokens)]
    assert "".join(parts) == "grün 圆形。"
    assert "圆" in parts
    assert vocabulary.ends_segment(tokenizer.encode("!", add_special_tokens=False)[0])
    assert not vocabulary.ends_segment(tokenizer.encode("a", add_special_tokens=False)[0])


@pytest.mark.parametrize(
    ("part", "change", "message"),
    [
        ("vocabulary", {"marker": ""}, "marker of a turn has no token"),
        ("vocabulary", {"ends_turn": ["<absent>"]}, "no token '<absent>'"),
        ("encoder", {"stack": 5}, "no multiple of stack"),
        ("encoder", {"type": "conformer"}, "conformer"),
    ],
)
def test_a_wrong_config_says_what_is_wrong(
    tmp_path: Path, part: str, change: dict[str, Any], message: str
) -> None:
    hub_folder(tmp_path, "group")
    content = json.loads((tmp_path / "config.json").read_text())
    content[part] |= change
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ModelMissingError, match=message):
        loaded(tmp_path, cache_mb=2)
