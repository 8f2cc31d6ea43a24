"""Three spoken sentences as WAV files (16 kHz, 16 bits), with their words and expected translations."""

from __future__ import annotations

import json
import wave
from dataclasses import dataclass
from pathlib import Path
from typing import Final

CLIPS: Final = Path(__file__).parent


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A spoken sentence."""

    path: Path
    spoken: str
    references: dict[str, str]
    """The expected texts, by language code: the translations and, in English, the spoken words."""

    def audio(self) -> bytes:
        """The samples: 16-bit PCM at 16 kHz."""
        with wave.open(str(self.path), "rb") as file:
            return file.readframes(file.getnframes())


def clips() -> list[Clip]:
    """All clips. This module does not import torch, so that a client's demo can use it."""
    entries = json.loads((CLIPS / "clips.json").read_text(encoding="utf-8"))
    return [
        Clip(path=CLIPS / entry["file"], spoken=entry["spoken"], references=entry["references"])
        for entry in entries
    ]
