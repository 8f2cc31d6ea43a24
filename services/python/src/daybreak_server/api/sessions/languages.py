"""Finds the language pair that a client asks for, by codes or names, among the pairs of the pool's model."""

from __future__ import annotations

import re
from collections.abc import Sequence

from daybreak_server.api.errors import ApiError, invalid_field
from daybreak_server.api.intake.catalog import PoolEntry
from daybreak_server.workloads.languages import LanguagePair

NAMES = {
    "ar": "Arabic",
    "de": "German",
    "en": "English",
    "es": "Spanish",
    "fr": "French",
    "hi": "Hindi",
    "it": "Italian",
    "ja": "Japanese",
    "ko": "Korean",
    "nl": "Dutch",
    "pl": "Polish",
    "pt": "Portuguese",
    "ru": "Russian",
    "tr": "Turkish",
    "uk": "Ukrainian",
    "zh": "Chinese",
}
"""The languages that clients may choose if the pool's workload lists no pairs. The group then decides whether its model
supports the pair."""

_ARROW = re.compile(r"\s*(?:->|→|=>)\s*")
_CODES = re.compile(r"([A-Za-z]{2,3})[-_]([A-Za-z]{2,3})")
_SHOWN = 40
"""An error quotes at most this many characters of a client's text."""


class Languages:
    """The language pairs of one pool."""

    def __init__(self, entry: PoolEntry) -> None:
        self.pool = entry.name
        self.pairs: Sequence[LanguagePair] = tuple(entry.spec.pairs(entry.settings.workload_options))

    def find(self, source: str | None, target: str | None) -> LanguagePair:
        """Find a pair. If all pairs have the same source language, the default source is that language. Otherwise it
        is English. The default target is the source.

        :raises ApiError: ``invalid_input``. If the pool's workload lists pairs, the error contains this list.
        """
        spoken = _text(source) or self._default_source()
        wanted = _text(target) or spoken
        if not self.pairs:
            return LanguagePair(
                source=_known(spoken, "source")[0],
                target=_known(wanted, "target")[0],
                source_name=_known(spoken, "source")[1],
                target_name=_known(wanted, "target")[1],
            )
        for pair in self.pairs:
            if _is(spoken, pair.source, pair.source_name) and _is(wanted, pair.target, pair.target_name):
                return pair
        raise self._unknown(f"{spoken[:_SHOWN]} -> {wanted[:_SHOWN]}")

    def parse(self, text: str) -> LanguagePair:
        """The pair of a text such as ``English -> Chinese`` or ``en-zh``. :raises ApiError: ``invalid_input``."""
        parts = _ARROW.split(text.strip())
        if len(parts) != 2:
            codes = _CODES.fullmatch(text.strip())
            parts = [codes[1], codes[2]] if codes else []
        if len(parts) != 2 or not all(parts):
            raise invalid_field(
                "language_pair",
                f"{text[:_SHOWN]!r} is not a language pair such as {self._example()!r}.",
            )
        return self.find(*parts)

    def _default_source(self) -> str:
        sources = {pair.source for pair in self.pairs}
        return sources.pop() if len(sources) == 1 else "en"

    def _example(self) -> str:
        return label(self.pairs[0]) if self.pairs else "English -> German"

    def _unknown(self, named: str) -> ApiError:
        has = ", ".join(label(pair) for pair in self.pairs)
        return invalid_field(
            "language_pair", f"The model of the pool {self.pool} has no pair {named}. It has: {has}."
        )


def label(pair: LanguagePair) -> str:
    """The pair by its names: ``English -> Chinese``."""
    return f"{pair.source_name} -> {pair.target_name}"


def _text(language: str | None) -> str:
    return (language or "").strip()


def _is(text: str, code: str, name: str) -> bool:
    return text.lower() in {code.lower(), name.lower()}


def _known(text: str, field: str) -> tuple[str, str]:
    for code, name in NAMES.items():
        if _is(text, code, name):
            return code, name
    raise invalid_field(field, f"{text[:_SHOWN]!r} is no known language. Send a code such as en, or a name.")
