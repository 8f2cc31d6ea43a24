"""Turns texts into token ids, on the threads that handle requests and tasks. So batches need no tokenizer, and the
number of tokens of each text is known before the text joins a batch.

For a fast tokenizer, this module calls the tokenizer's Rust object directly, with truncation and padding off. Several
threads may call this object at the same time. They could not share its Python wrapper in this way, because the wrapper
sets truncation and padding for each call.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from daybreak_server.workloads.text_batches.requests import wrong

PROBE = "a"
MANY = 1 << 30
"""More tokens than any model takes."""
_QUERY = " with its query"
_SHOWN = 40
"""How many characters of an invalid token id an error shows."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """An input of the model. ``type_ids`` are empty if the model has none."""

    ids: tuple[int, ...]
    type_ids: tuple[int, ...] = ()
    cut: bool = False
    """Whether the text was too long and has been cut."""


class TextTokenizer:
    """The tokenizer of a model, for any number of threads.

    :param tokenizer: a tokenizer of ``transformers``.
    :param max_tokens: the most tokens that the model takes as one input.
    :param cut: whether longer texts are cut, rather than refused.
    :param lower: whether texts are changed to lower case first.
    :param vocabulary: how many token ids the model has. ``None``: as many as the tokenizer has.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        max_tokens: int,
        cut: bool,
        lower: bool = False,
        vocabulary: int | None = None,
    ) -> None:
        self._lower = lower
        self._cut = cut
        self._lock = threading.Lock()
        self._slow: Any = tokenizer if not getattr(tokenizer, "is_fast", False) else None
        self._fast: Any = None
        if self._slow is None:
            from tokenizers import Tokenizer

            self._fast = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
            self._fast.no_truncation()
            self._fast.no_padding()
        self._typed = "token_type_ids" in tokenizer.model_input_names
        self.max_tokens = max_tokens
        self.vocabulary = min(len(tokenizer), vocabulary or len(tokenizer))
        self.before, self.after = self._special()

    def texts(self, texts: Sequence[str], fields: Sequence[str], *, prefix: str = "") -> list[Tokens]:
        """The tokens of each text. ``prefix`` comes before each text; special tokens are added.

        :param fields: the name of each text in error messages.
        :raises RequestError: if a text is too long and must not be cut.
        """
        encoded = self._encode([prefix + text for text in texts], special=True)
        start = self._start(prefix)
        return [self._fitting(ids, field, len(start)) for ids, field in zip(encoded, fields, strict=True)]

    def ids(self, lists: Sequence[Sequence[Any]], fields: Sequence[str], *, prefix: str = "") -> list[Tokens]:
        """Token ids that a client has sent. The tokens of ``prefix`` come before each list; special tokens are added.

        :param fields: the name of each list in error messages.
        :raises RequestError: if a list is empty, has an id outside the vocabulary, or is too long and must not be cut.
        """
        start = self._start(prefix)
        found = []
        for ids, name in zip(lists, fields, strict=True):
            if not ids:
                wrong(name, f"{name} is empty. Leave it out.", code="empty_input")
            for token in ids:
                if isinstance(token, bool) or not isinstance(token, int) or not 0 <= token < self.vocabulary:
                    wrong(
                        name,
                        f"{name} has the token id {repr(token)[:_SHOWN]}; ids of this model are whole numbers from 0 "
                        f"to {self.vocabulary - 1}.",
                        code="invalid_token",
                    )
            found.append(self._fitting((*start, *ids, *self.after), name, len(start)))
        return found

    def pairs(
        self, pairs: Sequence[tuple[str, str]], fields: Sequence[str], *, cut: bool = False
    ) -> list[Tokens]:
        """The tokens of pairs of texts, as a cross-encoder reads them. Only the second text is ever cut.

        :param cut: whether the second text may be cut, even if the tokenizer was made to refuse long texts.
        :raises RequestError: if a pair is too long and must not be cut.
        """
        found = []
        if self._lower:
            pairs = [(first.lower(), second.lower()) for first, second in pairs]
        for (ids, types, firsts), field in zip(self._encode_pairs(pairs), fields, strict=True):
            typed = types if self._typed else ()
            if len(ids) <= self.max_tokens:
                found.append(Tokens(ids, typed))
                continue
            end = len(self.after)
            self._check_length(len(ids), field, cut=cut, room=self.max_tokens - firsts - end, beside=_QUERY)
            kept = [*range(self.max_tokens - end), *range(len(ids) - end, len(ids))]
            found.append(
                Tokens(tuple(ids[at] for at in kept), tuple(typed[at] for at in kept if typed), True)
            )
        return found

    def plain(self, text: str) -> tuple[int, ...]:
        """The tokens of a text. No special tokens are added."""
        return self._encode([text], special=False)[0]

    def framed(
        self, before: Sequence[int], text: str, after: Sequence[int], field: str, *, cut: bool = False
    ) -> Tokens:
        """The tokens of a text, with fixed tokens around them. If the text is too long and may be cut, its end is cut.

        :raises RequestError: if the text is too long and must not be cut.
        """
        ids, room = self.plain(text), self.max_tokens - len(before) - len(after)
        if len(ids) > room:
            self._check_length(len(ids) + self.max_tokens - room, field, cut=cut, room=room, beside=_QUERY)
        return Tokens((*before, *ids[: max(0, room)], *after), (), len(ids) > room)

    # ── inside ───────────────────────────────────────────────────────────────────────────────────────────

    def _start(self, prefix: str) -> tuple[int, ...]:
        """The tokens that come before a text: the special tokens, and then those of ``prefix``."""
        return (*self.before, *self.plain(prefix)) if prefix else self.before

    def _fitting(self, ids: tuple[int, ...], field: str, start: int) -> Tokens:
        """The tokens of a text, cut to what the model takes. The first ``start`` tokens come before the text's own."""
        if not ids:
            wrong(field, f"{field} has no tokens. Send a text with words.", code="empty_input")
        if len(ids) <= self.max_tokens:
            return Tokens(ids)
        kept = self.max_tokens - len(self.after)
        self._check_length(len(ids), field, room=kept - start)
        return Tokens((*ids[:kept], *self.after), (), True)

    def _check_length(
        self, count: int, field: str, *, cut: bool = False, room: int, beside: str = ""
    ) -> None:
        """Refuse a text that is too long, unless it may be cut and at least one of its tokens fits.

        :param room: how many of its tokens fit.
        """
        if not (self._cut or cut) or room < 1:
            wrong(
                field,
                f"{field} has {count} tokens{beside}; this model takes at most {self.max_tokens}. Send a shorter text.",
                code="too_long",
            )

    def _encode(self, texts: Sequence[str], *, special: bool) -> list[tuple[int, ...]]:
        if self._lower:
            texts = [text.lower() for text in texts]
        if self._fast is not None:
            found = self._fast.encode_batch(list(texts), add_special_tokens=special)
            return [tuple(encoding.ids) for encoding in found]
        with self._lock:
            return [tuple(ids) for ids in self._slow(list(texts), add_special_tokens=special)["input_ids"]]

    def _encode_pairs(
        self, pairs: Sequence[tuple[str, str]]
    ) -> list[tuple[tuple[int, ...], tuple[int, ...], int]]:
        """The ids and types of each pair, and where its second text begins."""
        if self._fast is not None:
            return [
                (tuple(found.ids), tuple(found.type_ids), _second_at(found.sequence_ids))
                for found in self._fast.encode_batch([tuple(pair) for pair in pairs], add_special_tokens=True)
            ]
        with self._lock:
            found = self._slow([first for first, _ in pairs], [second for _, second in pairs])
            seconds = self._slow([second for _, second in pairs], add_special_tokens=False)["input_ids"]
        ids = [tuple(row) for row in found["input_ids"]]
        types = found.get("token_type_ids", [() for _ in ids])
        # The start of the second text is counted from the end of the pair, because tokenizers differ in the number of
        # special tokens between the two texts.
        return [
            (row, tuple(kinds), len(row) - len(self.after) - len(second))
            for row, kinds, second in zip(ids, types, seconds, strict=True)
        ]

    def _special(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The special tokens before and after a text."""
        whole, inner = self._encode([PROBE], special=True)[0], self._encode([PROBE], special=False)[0]
        for at in range(len(whole) - len(inner) + 1):
            if whole[at : at + len(inner)] == inner:
                return whole[:at], whole[at + len(inner) :]
        return (), ()


def _second_at(sequences: Sequence[int | None]) -> int:
    return next((at for at, which in enumerate(sequences) if which == 1), len(sequences))
