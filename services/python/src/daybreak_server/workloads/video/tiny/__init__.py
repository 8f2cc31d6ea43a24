"""The tiny trained Wan that ships in the package: it draws a moving shape as its prompt says, on a CPU."""

from pathlib import Path
from typing import Final

MODEL_DIR: Final = Path(__file__).parent / "model"
"""A standard diffusers folder: model_index.json, scheduler, text_encoder, tokenizer, transformer, vae."""
