"""Folders with an encoder and a language model in the layout of Hugging Face, against transformers' own outputs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn

from daybreak_server.workloads.base import ModelMissingError
from daybreak_server.workloads.sessions import PastTurn, Prefill
from testkit.speech_models import finish, loaded, noise

WIDTH, STACK, BLOCK_MS, LEFT = 48, 4, 480, 1
SAMPLES = BLOCK_MS * 16


def _tokenizer(folder: Path) -> int:
    """Writes a tokenizer of single bytes with four special tokens; returns how many tokens it has."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special = ["<pad>", "<end>", "<user>", "<assistant>"]
    vocabulary = {token: number for number, token in enumerate([*special, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        eos_token="<end>",
        additional_special_tokens=special[2:],
    ).save_pretrained(folder)
    return len(vocabulary)


def _wav2vec2(folder: Path, norm: str) -> Any:
    config = transformers.Wav2Vec2Config(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        conv_dim=[16] * 7,
        feat_extract_norm=norm,
        do_stable_layer_norm=norm == "layer",
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=2,
    )
    transformers.Wav2Vec2FeatureExtractor(do_normalize=norm == "layer").save_pretrained(folder)
    encoder = transformers.Wav2Vec2Model(config).eval()
    encoder.save_pretrained(folder)
    return encoder


def _whisper(folder: Path) -> Any:
    config = transformers.WhisperConfig(
        d_model=32,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        vocab_size=100,
        pad_token_id=0,
        bos_token_id=0,
        eos_token_id=0,
        decoder_start_token_id=0,
    )
    transformers.WhisperFeatureExtractor().save_pretrained(folder)
    model = transformers.WhisperModel(config).eval()
    model.save_pretrained(folder)
    return model.get_encoder()


def _folder(folder: Path, kind: str) -> tuple[Any, nn.Module]:
    """A folder with random weights; returns its encoder and its adapter."""
    torch.manual_seed(3)
    size = _tokenizer(folder / "language_model")
    transformers.Qwen2ForCausalLM(
        transformers.Qwen2Config(
            vocab_size=size,
            hidden_size=WIDTH,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            initializer_range=0.3,
        )
    ).save_pretrained(folder / "language_model")
    encoder = _whisper(folder / "encoder") if kind == "whisper" else _wav2vec2(folder / "encoder", kind)
    adapter = nn.Sequential(nn.Linear(STACK * 32, 64), nn.SiLU(), nn.Linear(64, WIDTH))
    save_file(adapter.state_dict(), folder / "adapter.safetensors")
    kind_of_encoder = "whisper" if kind == "whisper" else "wav2vec2"
    content = {
        "encoder": {"type": kind_of_encoder, "block_ms": BLOCK_MS, "left_blocks": LEFT, "stack": STACK},
        "vocabulary": {
            "source": "en",
            "targets": ["zh", "de"],
            "names": {"en": "English", "zh": "Chinese", "de": "German"},
            "opening": "<user>",
            "marker": "{target}:<assistant>",
            "ends_turn": ["<end>"],
        },
        "streaming": {
            "window": 60,
            "silence_blocks": 1,
            "first_turn_tokens": 6,
            "more_turn_tokens": 3,
            "past_blocks": 20,
        },
    }
    (folder / "config.json").write_text(json.dumps(content))
    return encoder, adapter


def _expected(encoder: Any, adapter: nn.Module, kind: str, window: torch.Tensor) -> torch.Tensor:
    """The embeddings of the newest block, by transformers' own feature extractor and encoder."""
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
    encoder, adapter = _folder(tmp_path, kind)
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
    _folder(tmp_path, "layer")
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
    _folder(tmp_path, "layer")
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
    _folder(tmp_path, "group")
    content = json.loads((tmp_path / "config.json").read_text())
    content[part] |= change
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(ModelMissingError, match=message):
        loaded(tmp_path, cache_mb=2)
