"""Speech models with random weights, and a computation of a whole stream at once.

Streaming must give the same result as this computation.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from daybreak_server.workloads.base import Group
from daybreak_server.workloads.sessions import LanguagePair, Prefill, SessionFailedError, Token
from daybreak_server.workloads.speech.causal_encoder import CausalEncoder
from daybreak_server.workloads.speech.encoder import EncoderConfig, SpeechEncoder
from daybreak_server.workloads.speech.features import OVERLAP, log_mel
from daybreak_server.workloads.speech.model import Speech
from daybreak_server.workloads.speech.window import first_visible

TOKENS = ["<pad>", "<end>", "<en>", "<de>", ".", *(f"▁word{number}" for number in range(35))]
ENCODER = {"width": 32, "heads": 2, "inner": 48, "layers": 2, "left_blocks": 2, "output": 48}
WINDOW = 40


def random_folder(folder: Path, *, family: str = "llama", **streaming: int) -> Path:
    """Write the folder of a model with random weights. The package ``transformers`` writes the language model."""
    import transformers

    torch.manual_seed(5)
    encoder = SpeechEncoder(EncoderConfig(**ENCODER))
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: part.contiguous() for name, part in encoder.state_dict().items()},
        folder / "encoder.safetensors",
    )
    shape: dict[str, Any] = {
        "vocab_size": len(TOKENS),
        "hidden_size": 48,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "initializer_range": 0.3,
    }
    classes = {
        "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
        "qwen2": (transformers.Qwen2Config, transformers.Qwen2ForCausalLM),
    }
    config, model = classes[family]
    made = model(config(**shape, tie_word_embeddings=family == "qwen2"))
    for name, part in made.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(part, std=0.3)
    made.save_pretrained(folder / "language_model")
    values = {
        "window": WINDOW,
        "silence_blocks": 1,
        "first_turn_tokens": 5,
        "more_turn_tokens": 2,
        "past_blocks": 40,
    }
    _write(folder / "config.json", {"encoder": ENCODER, "streaming": values | streaming})
    vocabulary = {
        "tokens": TOKENS,
        "padding": "<pad>",
        "end_of_turn": "<end>",
        "stops": ["."],
        "source": "en",
        "markers": {"en": "<en>", "de": "<de>"},
        "names": {"en": "English", "de": "German"},
    }
    _write(folder / "vocabulary.json", vocabulary)
    return folder


def _write(file: Path, content: object) -> None:
    file.write_text(json.dumps(content), encoding="utf-8")


def loaded(folder: Path | None = None, **options: Any) -> Speech:
    """The workload with the model in ``folder``. Without a folder, the workload has the built-in model."""
    torch.set_num_threads(1)  # with more threads, matrix products this small are slower
    model = Speech()
    model.load(Group(options={**({"model": str(folder)} if folder else {}), **options}))
    return model


def noise(seconds: float, seed: int, level: float = 0.1) -> bytes:
    """White noise as 16-bit PCM."""
    samples = torch.randn(round(seconds * 16_000), generator=torch.Generator().manual_seed(seed)) * level
    return pcm(samples)


def pcm(samples: Tensor) -> bytes:
    """Samples in [-1, 1] as 16-bit PCM."""
    return (samples.clamp(-1, 1) * 32767).to(torch.int16).numpy().tobytes()


def turns_of(audio: bytes, model: Speech, blocks: int = 2) -> list[bytes]:
    """Audio, cut into turns of ``blocks`` blocks."""
    size = blocks * model.shape.block_samples * 2
    return [audio[at : at + size] for at in range(0, len(audio), size)]


def token(answer: Token | SessionFailedError) -> Token:
    """The answer, which must not be an error."""
    assert isinstance(answer, Token), answer
    return answer


def finish(model: Speech, answers: Sequence[Token | SessionFailedError]) -> dict[str, list[Token]]:
    """Decode until the turn of each session has ended.

    :returns: The tokens by session; those of ``answers`` come first.
    """
    written: dict[str, list[Token]] = {token(answer).session: [] for answer in answers}
    while answers:
        writing = [token(answer) for answer in answers if token(answer).token is not None]
        for each in writing:
            written[each.session].append(each)
        answers = model.decode([each.session for each in writing]) if writing else ()
    return written


def speak(
    model: Speech, audio: bytes, pair: LanguagePair, *, blocks: int = 2, session: str = "alone"
) -> list[list[Token]]:
    """Run one session from its beginning to its end, with no other session beside it.

    :returns: The tokens of each turn.
    """
    model.open(session, pair)
    turns = turns_of(audio, model, blocks)
    written = []
    for number, turn in enumerate(turns):
        answers = model.prefill([Prefill(session=session, audio=turn, last=number == len(turns) - 1)])
        written.append(finish(model, answers)[session])
    model.close(session)
    return written


def whole_stream(
    model: Speech, turns: Sequence[bytes], texts: Sequence[Sequence[int]], marker: int
) -> list[Tensor]:
    """The logits after the marker and after each token of every turn.

    They are computed for the whole stream at once, without a cache.
    """
    parts = model._parts
    assert isinstance(parts.encoder, CausalEncoder)
    audio = torch.frombuffer(bytearray(b"".join(turns)), dtype=torch.int16).float() / 32768
    with torch.inference_mode():
        states = parts.encoder.module(log_mel(torch.nn.functional.pad(audio, (OVERLAP, 0)))[None])
        speech = parts.encoder.module.adapt(states)[0]
        each = parts.encoder.block_embeddings
        embed, at = parts.language_model.embed.weight, 0
        rows: list[Tensor] = []
        starts: list[int] = []
        lengths: list[int] = []
        for turn, text in zip(turns, texts, strict=True):
            count = len(turn) // (model.shape.block_samples * 2) * each
            row = torch.cat((speech[at : at + count], embed[torch.tensor([marker, *text])]))
            starts += [sum(lengths[: first_visible(lengths, parts.window)])] * len(row)
            rows.append(row)
            lengths.append(len(row))
            at += count
        logits = parts.language_model(torch.cat(rows)[None], torch.tensor(starts)[None])[0]
    ends = torch.tensor(lengths).cumsum(0).tolist()
    return [logits[end - len(text) - 1 : end] for end, text in zip(ends, texts, strict=True)]
