"""A folder with a speech translation model.

::

    config.json          the shape of the encoder, and numbers for streaming, such as the window
    language_model/      config.json and *.safetensors in the layout of Hugging Face: Llama or Qwen2
    encoder.safetensors  the causal speech encoder with its adapter
    vocabulary.json      the tokens and languages

If ``encoder.type`` in ``config.json`` is ``wav2vec2`` or ``whisper``, these replace ``encoder.safetensors``::

    encoder/             the encoder in the layout of Hugging Face
    adapter.safetensors  two linear layers that turn stacked states of the encoder into input of the language model

If ``config.json`` has an entry ``vocabulary``, this entry and the tokenizer in ``language_model/`` replace
``vocabulary.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from safetensors.torch import load_file
from torch import Tensor

from daybreak_server.workloads.base import ModelMissingError
from daybreak_server.workloads.speech.causal_encoder import CausalEncoder
from daybreak_server.workloads.speech.encoder import EncoderConfig, SpeechEncoder
from daybreak_server.workloads.speech.hub_vocabulary import HubVocabulary
from daybreak_server.workloads.speech.language_model import LanguageModel, LanguageModelConfig
from daybreak_server.workloads.speech.streaming import StreamingEncoder, Vocabulary
from daybreak_server.workloads.speech.vocabulary import WordVocabulary
from daybreak_server.workloads.speech.window_encoder import WindowEncoder


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeechFolder:
    """The parts of a model, loaded."""

    encoder: StreamingEncoder
    language_model: LanguageModel
    vocabulary: Vocabulary
    window: int
    """How many positions of past turns the next turn sees."""
    silence_blocks: int
    """How many blocks of silence the model needs after the last audio."""
    first_turn_tokens: int
    """How many tokens a turn of one block may have."""
    more_turn_tokens: int
    """How many more tokens a turn may have for each further block."""
    past_blocks: int
    """How many of the newest blocks of past turns decide what the model writes next."""
    max_turn_blocks: int | None = None
    """The number of blocks in the longest turns that the model was trained with; ``None``: no limit."""


def read_folder(folder: Path, *, dtype: torch.dtype, device: str) -> SpeechFolder:
    """Load the parts. :raises ModelMissingError: if a file is missing or invalid."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        language_model = read_language_model(folder / "language_model").to(device, dtype).eval()
        return SpeechFolder(
            encoder=_encoder(folder, config["encoder"], language_model, dtype=dtype, device=device),
            language_model=language_model,
            vocabulary=_vocabulary(folder, config.get("vocabulary")),
            **config["streaming"],
        )
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as exc:
        raise ModelMissingError(
            f"the speech model in {folder} cannot be loaded: {_reason(exc)} `daybreakd models verify {folder}` "
            "checks all of its parts."
        ) from exc


def _reason(error: Exception) -> str:
    text = f"it has no {error}" if isinstance(error, KeyError) else str(error)
    return " ".join(text.split()).rstrip(".") + "."


def _encoder(
    folder: Path, content: dict[str, Any], language_model: LanguageModel, *, dtype: torch.dtype, device: str
) -> StreamingEncoder:
    kind = content.get("type", "causal")
    if kind != "causal":
        return WindowEncoder(folder, content, width=language_model.config.width, dtype=dtype, device=device)
    module = SpeechEncoder(
        EncoderConfig(**{name: value for name, value in content.items() if name != "type"})
    )
    module.load_state_dict(load_file(folder / "encoder.safetensors"))
    return CausalEncoder(module.to(device, dtype).eval().requires_grad_(False))


def _vocabulary(folder: Path, content: dict[str, Any] | None) -> Vocabulary:
    """The vocabulary. ``content``: the entry ``vocabulary`` of ``config.json``, or ``None`` if there is no such entry.

    With this entry, the vocabulary consists of the entry and the language model's tokenizer. Without it, the vocabulary
    is read from ``vocabulary.json``.
    """
    if content is not None:
        return HubVocabulary(folder / "language_model", content)
    return WordVocabulary.read(folder / "vocabulary.json")


FAMILIES: Final = {"llama": False, "qwen2": True}
"""The model types that can be read, and whether their queries, keys and values have a bias."""


def read_language_model(folder: Path) -> LanguageModel:
    """Read a language model in the layout of Hugging Face.

    :raises ValueError: if the model's type is not in :data:`FAMILIES`, or this implementation lacks a part of it.
    :raises KeyError: if a size or a weight is missing.
    :raises RuntimeError: if a weight has the wrong shape.
    """
    content: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    weights: dict[str, Tensor] = {}
    for file in sorted(folder.glob("*.safetensors")):
        weights |= load_file(file)
    model = LanguageModel(language_model_config(content))
    model.load_state_dict(from_hugging_face(weights, model.config))
    return model


def language_model_config(content: dict[str, Any]) -> LanguageModelConfig:
    """The shape of a language model, from its ``config.json`` in the layout of Hugging Face.

    :raises ValueError: if this workload cannot compute such a model.
    """
    family = content.get("model_type")
    if family not in FAMILIES:
        raise ValueError(f"the language model is a {family}; this workload reads {', '.join(FAMILIES)}")
    rope = content.get("rope_parameters") or content.get("rope_scaling") or {}
    if rope.get("rope_type", rope.get("type", "default")) != "default":
        raise ValueError(
            f"the language model has scaled rotary positions ({rope}), which this workload cannot do"
        )
    other = [name for name in ("use_sliding_window", "attention_bias", "mlp_bias") if content.get(name)]
    if other or content.get("hidden_act", "silu") != "silu":
        raise ValueError(
            f"this workload cannot do {', '.join(other) or 'the activation'} of the language model"
        )
    heads = content["num_attention_heads"]
    return LanguageModelConfig(
        vocabulary=content["vocab_size"],
        width=content["hidden_size"],
        heads=heads,
        kv_heads=content.get("num_key_value_heads") or heads,
        head_dim=content.get("head_dim") or content["hidden_size"] // heads,
        inner=content["intermediate_size"],
        layers=content["num_hidden_layers"],
        rope_base=float(rope.get("rope_theta", content.get("rope_theta", 10_000.0))),
        eps=content["rms_norm_eps"],
        bias=FAMILIES[family],
        tied=bool(content.get("tie_word_embeddings")),
    )


_NORMS: Final = {"attention_norm": "input_layernorm", "mlp_norm": "post_attention_layernorm"}
_FUSED: Final = {
    "qkv": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "gate_up": ("mlp.gate_proj", "mlp.up_proj"),
    "out": ("self_attn.o_proj",),
    "down": ("mlp.down_proj",),
}


def from_hugging_face(weights: dict[str, Tensor], config: LanguageModelConfig) -> dict[str, Tensor]:
    """Convert the weights of a Hugging Face model to those of :class:`LanguageModel`, which fuses some of them.

    :raises KeyError: if a weight is missing.
    """
    named = {
        "embed.weight": weights["model.embed_tokens.weight"],
        "norm.weight": weights["model.norm.weight"],
        "head.weight": weights["model.embed_tokens.weight" if config.tied else "lm_head.weight"],
    }
    for number in range(config.layers):
        ours, theirs = f"layers.{number}.", f"model.layers.{number}."
        for norm, name in _NORMS.items():
            named[f"{ours}{norm}.weight"] = weights[f"{theirs}{name}.weight"]
        for fused, names in _FUSED.items():
            named[f"{ours}{fused}.weight"] = torch.cat([weights[f"{theirs}{name}.weight"] for name in names])
        if config.bias:
            named[f"{ours}qkv.bias"] = torch.cat([weights[f"{theirs}{name}.bias"] for name in _FUSED["qkv"]])
    return named


def to_hugging_face(model: LanguageModel) -> dict[str, Tensor]:
    """The inverse of :func:`from_hugging_face`."""
    weights, config = model.state_dict(), model.config
    named = {
        "model.embed_tokens.weight": weights["embed.weight"],
        "model.norm.weight": weights["norm.weight"],
    }
    if not config.tied:
        named["lm_head.weight"] = weights["head.weight"]
    q, k = config.heads * config.head_dim, config.kv_heads * config.head_dim
    sizes = {
        "qkv": [q, k, k],
        "gate_up": [config.inner, config.inner],
        "out": [config.width],
        "down": [config.width],
    }
    for number in range(config.layers):
        ours, theirs = f"layers.{number}.", f"model.layers.{number}."
        for norm, name in _NORMS.items():
            named[f"{theirs}{name}.weight"] = weights[f"{ours}{norm}.weight"]
        for fused, names in _FUSED.items():
            parts = weights[f"{ours}{fused}.weight"].split(sizes[fused])
            named |= {f"{theirs}{name}.weight": part for name, part in zip(names, parts, strict=True)}
        if config.bias:
            parts = weights[f"{ours}qkv.bias"].split(sizes["qkv"])
            named |= {f"{theirs}{name}.bias": part for name, part in zip(_FUSED["qkv"], parts, strict=True)}
    return {name: part.clone().contiguous() for name, part in named.items()}
