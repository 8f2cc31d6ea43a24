"""Random sentences of a small grammar, with their translations, and the word that each target token waits for.

A simultaneous translator must not write a token before it has heard the words that decide it. German "ein roter Kreis"
waits for "circle", because the gender of "Kreis" decides "ein" and the ending "er". In English, a modifier such as
"moving left" comes after its noun; in Chinese, before the noun. So the Chinese noun waits until the next English word
shows that no such modifier follows.
Each target token has the index of the last source word that it needs, or :data:`SILENCE` if only silence shows that the
sentence is over.
"""

from __future__ import annotations

import random
import zlib
from typing import Final, NamedTuple

from verification.tiny_speech.lexicon import (
    A_ACCUSATIVE,
    A_NOMINATIVE,
    ACCUSATIVE,
    COLOURS,
    COUNTS,
    DIRECTIONS,
    ENDING_ACCUSATIVE,
    ENDING_NOMINATIVE,
    NOMINATIVE,
    SHAPES,
    SIZES,
    TOKENS,
    VERBS,
)

SILENCE: Final = -1

Target = tuple[str, int]
"""A target token and the index of the last source word that it needs."""


class Sentence(NamedTuple):
    """English words, and the tokens of each language. A token has the index of the last source word that it needs."""

    words: list[str]
    targets: dict[str, list[tuple[int, int]]]

    @property
    def text(self) -> str:
        """The English text."""
        return " ".join(self.words)

    @property
    def held_out(self) -> bool:
        """Whether the sentence is left out of training, as about 5 % of all sentences are."""
        return zlib.crc32(self.text.encode()) % 20 == 0


class _NounPhrase:
    """A random noun phrase, and the positions of its words in the sentence."""

    def __init__(self, rng: random.Random, words: list[str]) -> None:
        self.size = rng.choice([None, None, *SIZES])
        self.colour = rng.choice(list(COLOURS))
        name = rng.choice(list(SHAPES))
        self.shape = SHAPES[name]
        self.determiner = rng.choice(["a", "a", "the", rng.choice(list(COUNTS)), rng.choice(list(COUNTS))])
        self.plural = self.determiner in COUNTS
        self.first = len(words)
        words += [self.determiner, *([self.size] if self.size else []), self.colour]
        words.append(f"{name}s" if self.plural else name)
        self.noun = len(words) - 1

    def _german_determiner(self, accusative: bool) -> tuple[Target, str]:
        gender = self.shape.gender
        if self.plural:
            return (COUNTS[self.determiner][0], self.first), "e"
        if self.determiner == "the":
            ending = "en" if accusative and gender == "m" else "e"
            return ((ACCUSATIVE if accusative else NOMINATIVE)[gender], self.noun), ending
        ending = (ENDING_ACCUSATIVE if accusative else ENDING_NOMINATIVE)[gender]
        return ((A_ACCUSATIVE if accusative else A_NOMINATIVE)[gender], self.noun), ending

    def german(self, accusative: bool) -> list[Target]:
        (determiner, waits_for), ending = self._german_determiner(accusative)
        targets = [(f"▁{determiner}", waits_for)]
        if self.size:
            targets += [(f"▁{SIZES[self.size][0]}", self.first + 1), (ending, self.first + 1)]
        targets += [(f"▁{COLOURS[self.colour][0]}", self.noun - 1), (ending, self.noun - 1)]
        return [*targets, (f"▁{self.shape.plural if self.plural else self.shape.singular}", self.noun)]

    @property
    def german_relative(self) -> str:
        return "die" if self.plural else NOMINATIVE[self.shape.gender]

    def chinese(self, decided_by: int, modifier: list[Target]) -> list[Target]:
        """``decided_by``: the index of the English word after which colour, size and noun can be written."""
        number = COUNTS[self.determiner][1] if self.plural else ("这" if self.determiner == "the" else "一")
        size = SIZES[self.size][1] if self.size else ""
        rest = f"{COLOURS[self.colour][1]}色的{size}{self.shape.chinese}"
        return [
            (number, self.noun),
            (self.shape.classifier, self.noun),
            *modifier,
            *((character, decided_by) for character in rest),
        ]


class _VerbPhrase:
    """A random verb. *moving* also has a direction."""

    def __init__(self, rng: random.Random, words: list[str], plural: bool) -> None:
        name = rng.choice(["moving", "moving", "moving", "turning", "growing", "shrinking"])
        self.verb = VERBS[name]
        words.append(name)
        self.index = len(words) - 1
        self.direction = rng.choice(list(DIRECTIONS)) if name == "moving" else None
        if self.direction:
            words.append(self.direction)
        self.last = len(words) - 1
        self.finite = f"▁{self.verb.plural if plural else self.verb.singular}"
        self.reflexive = [("▁sich", self.index)] if self.verb.reflexive else []

    @property
    def german_direction(self) -> list[Target]:
        return (
            [("▁nach", self.last), (f"▁{DIRECTIONS[self.direction][0]}", self.last)] if self.direction else []
        )

    @property
    def chinese(self) -> list[Target]:
        if not self.direction:
            return [(character, self.index) for character in self.verb.chinese]
        return [
            ("向", self.index),
            (DIRECTIONS[self.direction][1], self.last),
            ("移", self.last),
            ("动", self.last),
        ]


class _Draft:
    """A sentence that is being built, in all three languages."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.words: list[str] = []
        self.german: list[Target] = []
        self.chinese: list[Target] = []

    def clause(self, inverted: bool) -> None:
        noun = _NounPhrase(self.rng, self.words)
        self.words.append("are" if noun.plural else "is")
        auxiliary = len(self.words) - 1
        verb = _VerbPhrase(self.rng, self.words, noun.plural)
        finite = [(verb.finite, verb.index)]
        if inverted:
            self.german += [*finite, *verb.reflexive, *noun.german(False), *verb.german_direction]
        else:
            self.german += [*noun.german(False), *finite, *verb.reflexive, *verb.german_direction]
        self.chinese += [*noun.chinese(auxiliary, []), ("正", auxiliary), ("在", auxiliary), *verb.chinese]

    def phrase(self, accusative: bool, modified: bool) -> None:
        noun = _NounPhrase(self.rng, self.words)
        if not modified:
            self.german += noun.german(accusative)
            self.chinese += noun.chinese(noun.noun + 1, [])
            return
        verb = _VerbPhrase(self.rng, self.words, noun.plural)
        self.german += [*noun.german(accusative), (",", verb.index), (f"▁{noun.german_relative}", verb.index)]
        self.german += [*verb.reflexive, *verb.german_direction, (verb.finite, verb.last)]
        self.chinese += noun.chinese(verb.last, [*verb.chinese, ("的", verb.last)])

    def link(self, word: str) -> None:
        self.words.append(word)
        index = len(self.words) - 1
        self.german += [("▁und", index)] if word == "and" else [(",", index), ("▁dann", index)]
        self.chinese += [(character, index) for character in ("，同时" if word == "and" else "，然后")]

    def show(self, kind: str) -> None:
        self.words += ["show", "me"]
        self.german += [("▁zeig", 1), ("▁mir", 1)]
        self.chinese += [("给", 1), ("我", 1), ("看", 1)]
        self.phrase(True, kind == "show one that moves")
        if kind == "show two":
            self.words.append("and")
            index = len(self.words) - 1
            self.german.append(("▁und", index))
            self.chinese.append(("和", index))
            self.phrase(True, False)


_KINDS = {
    "clause": 4.0,
    "phrase": 3.0,
    "show one": 2.0,
    "show one that moves": 2.0,
    "show two": 1.5,
    "and": 2.5,
    "then": 2.5,
}


def random_sentence(rng: random.Random) -> Sentence:
    """One sentence of the grammar."""
    draft = _Draft(rng)
    kind = rng.choices(list(_KINDS), list(_KINDS.values()))[0]
    if kind.startswith("show"):
        draft.show(kind)
    elif kind == "phrase":
        draft.phrase(False, True)
    else:
        draft.clause(False)
        if kind in {"and", "then"}:
            draft.link(kind)
            draft.clause(kind == "then")
    words = draft.words
    english = [(f"▁{word}", index) for index, word in enumerate(words)]
    targets = {
        "en": [*english, (".", SILENCE)],
        "de": [*draft.german, (".", SILENCE)],
        "zh": [*draft.chinese, ("。", SILENCE)],
    }
    return Sentence(words, {language: _numbered(tokens, len(words)) for language, tokens in targets.items()})


def _numbered(targets: list[Target], words: int) -> list[tuple[int, int]]:
    """Replace tokens by their numbers. A token that waits for a word after the last one waits for silence instead."""
    return [(TOKENS[token], SILENCE if needs >= words else needs) for token, needs in targets]
