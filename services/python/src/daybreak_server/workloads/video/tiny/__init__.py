"""The tiny trained Wan model that ships in the package. On a CPU, it draws the moving shape that a prompt describes."""

from pathlib import Path
from typing import Final

MODEL_DIR: Final = Path(__file__).parent / "model"
"""A diffusers folder: model_index.json, scheduler, text_encoder, tokenizer, transformer, vae."""
