"""The texts that clients send: short texts, long texts, a mixture of both, and an outlier."""

from __future__ import annotations

import random

_SENTENCE = (
    "how do I bake a good loaf of bread at home without a mixer when there is little time and only some old flour left "
    "in the house of my neighbours who went to the sea last week and will come back on Sunday with fresh fish for all "
    "children in our street although nobody asked them to do so"
)
_WORDS = _SENTENCE.split()
SHORT, LONG = (3, 14), (90, 150)
"""The fewest and the most words of a short text, and of a long one."""
DISTINCT = 240
OUTLIER_TOKENS = 8_000
KINDS = {
    "short": f"{SHORT[0]} to {SHORT[1]} words",
    "long": f"{LONG[0]} to {LONG[1]} words",
    "mixed": "nine short ones to one long one",
}


def texts(kind: str, *, seed: int = 16) -> list[str]:
    """Distinct texts of a kind, the same in every run."""
    chance = random.Random(f"{kind} {seed}")

    def lengths(number: int) -> tuple[int, int]:
        if kind == "mixed":
            return LONG if number % 10 == 9 else SHORT
        return {"short": SHORT, "long": LONG}[kind]

    found = [_text(chance, chance.randint(*lengths(number))) for number in range(DISTINCT)]
    chance.shuffle(found)
    return found


def outlier() -> str:
    """A text of at least :data:`OUTLIER_TOKENS` tokens. Each of its words is at least one token."""
    return _text(random.Random(8), OUTLIER_TOKENS)


def _text(chance: random.Random, words: int) -> str:
    return " ".join(chance.choice(_WORDS) for _ in range(words))
