"""Makes the folder of a model from a checkpoint of its training.

python -m verification.tiny_speech.export CHECKPOINT FOLDER
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file

from daybreak_server.workloads.speech.folder import to_hugging_face
from verification.tiny_speech.lexicon import LANGUAGES, SPECIAL, STOPS, VOCABULARY
from verification.tiny_speech.streams import WINDOW
from verification.tiny_speech.train import TURN_BLOCKS, Translator

STREAMING: Final = {
    "window": WINDOW,
    "silence_blocks": 1,
    "first_turn_tokens": 24,
    "more_turn_tokens": 12,
    "past_blocks": 40,
    "max_turn_blocks": max(TURN_BLOCKS),
}
_NAMES = {"de": "German", "zh": "Chinese", "en": "English"}


def export(checkpoint: Path, folder: Path) -> None:
    """Write the folder. The weights are rounded to bfloat16."""
    model = Translator()
    model.load_state_dict(load_file(checkpoint))
    lm_folder = folder / "language_model"
    lm_folder.mkdir(parents=True, exist_ok=True)
    _save(model.encoder.state_dict(), folder / "encoder.safetensors")
    _save(to_hugging_face(model.lm), lm_folder / "model.safetensors")
    _write(folder / "config.json", {"encoder": asdict(model.encoder.config), "streaming": STREAMING})
    _write(lm_folder / "config.json", _llama(model))
    _write(
        folder / "vocabulary.json",
        {
            "tokens": VOCABULARY,
            "padding": SPECIAL[0],
            "end_of_turn": SPECIAL[1],
            "stops": STOPS,
            "source": "en",
            "markers": {code: VOCABULARY[LANGUAGES[code]] for code in _NAMES},
            "names": _NAMES,
        },
    )


def _llama(model: Translator) -> dict[str, object]:
    """The ``config.json`` of the language model, for the package ``transformers``."""
    config = model.lm.config
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "intermediate_size": config.inner,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "head_dim": config.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": config.eps,
        "rope_theta": config.rope_base,
        "tie_word_embeddings": False,
        "attention_bias": False,
        "mlp_bias": False,
        "bos_token_id": None,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "dtype": "bfloat16",
    }


def _save(weights: dict[str, torch.Tensor], file: Path) -> None:
    """Write weights as bfloat16, to a file that every user can read."""
    save_file(
        {name: part.to(torch.bfloat16).contiguous() for name, part in weights.items()}, file, {"format": "pt"}
    )
    file.chmod(0o644)


def _write(file: Path, content: object) -> None:
    file.write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    export(options.checkpoint, options.folder)


if __name__ == "__main__":
    main()
