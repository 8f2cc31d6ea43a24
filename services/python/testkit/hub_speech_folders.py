"""Writes the folders of tiny speech translators with random weights. The encoders and the language models are written
by the library ``transformers``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn

WIDTH, STACK, BLOCK_MS, LEFT = 48, 4, 480, 1
SAMPLES = BLOCK_MS * 16


def _tokenizer(folder: Path) -> int:
    """Write a tokenizer of single bytes with four special tokens; return how many tokens it has."""
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


def hub_folder(folder: Path, kind: str) -> tuple[Any, nn.Module]:
    """Write a folder with random weights. ``kind``: ``whisper``, or for wav2vec 2.0 its norm (``group``, ``layer``).

    Returns the encoder and the adapter of the model.
    """
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
