"""The vocabulary of a language model from Hugging Face: its tokenizer, and the languages in ``config.json``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from daybreak_server.workloads.languages import LanguagePair
from daybreak_server.workloads.speech.pairs import pairs_in

_INCOMPLETE = "\ufffd"


class HubVocabulary:
    """Implements :class:`~daybreak_server.workloads.speech.streaming.Vocabulary`.

    In the object ``vocabulary`` of ``config.json``, ``source`` is a language's code, ``targets`` lists such codes, and
    ``names`` maps each code to the language's name. The object also has the texts ``opening`` (before the audio of a
    turn; may be absent) and ``marker`` (after the audio), in which ``{target}`` stands for the name of the target
    language. ``ends_turn`` lists the tokens that end a turn. ``stops`` lists the characters that end a sentence (by
    default, those of English and Chinese).

    :raises ValueError: if the tokenizer lacks a token of ``ends_turn``, or a marker has no token.
    """

    def __init__(self, folder: Path, content: Mapping[str, Any]) -> None:
        from transformers import AutoTokenizer

        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self.pairs = pairs_in(content)
        self.ends_turn = frozenset(self._number(token) for token in content["ends_turn"])
        self._stops = tuple(content.get("stops", ".!?。！？"))
        self._openings = {pair: self._ids(content.get("opening", ""), pair) for pair in self.pairs}
        self._markers = {pair: self._ids(content["marker"], pair) for pair in self.pairs}
        if not all(self._markers.values()):
            raise ValueError("the marker of a turn has no token")

    @property
    def largest(self) -> int:
        """The highest token id that ``config.json`` uses. A tokenizer may have more tokens than its model."""
        named = (*self._openings.values(), *self._markers.values(), self.ends_turn)
        return max(number for numbers in named for number in numbers)

    def _number(self, token: str) -> int:
        number = self._tokenizer.convert_tokens_to_ids(token)
        if number is None or number == self._tokenizer.unk_token_id:
            raise ValueError(f"the tokenizer has no token {token!r}")
        return int(number)

    def _ids(self, template: str, pair: LanguagePair) -> tuple[int, ...]:
        text = template.replace("{target}", pair.target_name)
        return tuple(self._tokenizer.encode(text, add_special_tokens=False))

    def opening(self, pair: LanguagePair) -> tuple[int, ...]:
        """The tokens before the audio."""
        return self._openings[pair]

    def marker(self, pair: LanguagePair) -> tuple[int, ...]:
        """The tokens after the audio."""
        return self._markers[pair]

    def text(self, before: Sequence[int], token: int) -> str:
        """The text that a token adds. A character that takes several tokens is added with the last of them."""
        known, now = self._decode(before).rstrip(_INCOMPLETE), self._decode([*before, token])
        return "" if now.endswith(_INCOMPLETE) else now[len(known) :]

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def ends_segment(self, token: int) -> bool:
        """Whether a token ends with a character that ends a sentence."""
        return self._decode([token]).rstrip().endswith(self._stops)
