"""The vocabulary of the tiny model: a JSON file with the languages that the model knows and a list of its tokens."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from daybreak_server.workloads.languages import LanguagePair
from daybreak_server.workloads.speech.pairs import pairs_in

WORD_START = "▁"


class WordVocabulary:
    """Implements :class:`~daybreak_server.workloads.speech.streaming.Vocabulary`.

    A token that begins with ``▁`` begins a word, as in SentencePiece.
    """

    def __init__(self, content: dict[str, Any]) -> None:
        self.tokens: list[str] = content["tokens"]
        numbers = {token: number for number, token in enumerate(self.tokens)}
        self.ends_turn = frozenset({numbers[content["end_of_turn"]], numbers[content["padding"]]})
        self._stops = frozenset(numbers[token] for token in content["stops"])
        markers = content["markers"]
        self.ends_turn |= {numbers[token] for token in markers.values()}
        self.pairs = pairs_in(content)
        self._markers = {pair: (numbers[markers[pair.target]],) for pair in self.pairs}

    @classmethod
    def read(cls, file: Path) -> WordVocabulary:
        """Read the file."""
        return cls(json.loads(file.read_text(encoding="utf-8")))

    def marker(self, pair: LanguagePair) -> tuple[int, ...]:
        """The token that names the target language."""
        return self._markers[pair]

    def opening(self, pair: LanguagePair) -> tuple[int, ...]:
        """Empty, because this model reads no tokens before the audio."""
        return ()

    def text(self, before: Sequence[int], token: int) -> str:
        """The characters that a token adds to the text."""
        written = self.tokens[token]
        if written.startswith(WORD_START):
            return f" {written[1:]}" if before else written[1:]
        return written

    def ends_segment(self, token: int) -> bool:
        """Whether a token is a full stop."""
        return token in self._stops
