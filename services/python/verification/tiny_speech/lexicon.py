"""The words of the tiny grammar in English, German and Chinese, and the vocabulary of the language model.

As in SentencePiece, the first token of a German or English word begins with ``▁``. German endings (``er``),
Chinese characters and punctuation have no such mark. So the text of a list of tokens is their concatenation,
with a space in place of each ``▁``.
"""

from __future__ import annotations

from typing import Final, NamedTuple

COLOURS: Final = {
    "red": ("rot", "红"),
    "blue": ("blau", "蓝"),
    "green": ("grün", "绿"),
    "yellow": ("gelb", "黄"),
    "white": ("weiß", "白"),
    "black": ("schwarz", "黑"),
    "grey": ("grau", "灰"),
    "brown": ("braun", "棕"),
}
SIZES: Final = {"big": ("groß", "大"), "small": ("klein", "小")}
COUNTS: Final = {
    "two": ("zwei", "两"),
    "three": ("drei", "三"),
    "four": ("vier", "四"),
    "five": ("fünf", "五"),
    "six": ("sechs", "六"),
}
DIRECTIONS: Final = {
    "left": ("links", "左"),
    "right": ("rechts", "右"),
    "up": ("oben", "上"),
    "down": ("unten", "下"),
}


class Shape(NamedTuple):
    """A noun: German gender, singular and plural; Chinese noun and classifier."""

    gender: str
    singular: str
    plural: str
    chinese: str
    classifier: str


SHAPES: Final = {
    "circle": Shape("m", "Kreis", "Kreise", "圆形", "个"),
    "square": Shape("n", "Quadrat", "Quadrate", "方块", "个"),
    "triangle": Shape("n", "Dreieck", "Dreiecke", "三角形", "个"),
    "star": Shape("m", "Stern", "Sterne", "星星", "颗"),
    "ball": Shape("f", "Kugel", "Kugeln", "球", "个"),
    "flower": Shape("f", "Blume", "Blumen", "花", "朵"),
}


class Verb(NamedTuple):
    """A verb: German singular and plural, whether it is reflexive, and Chinese."""

    singular: str
    plural: str
    reflexive: bool
    chinese: str


VERBS: Final = {
    "turning": Verb("dreht", "drehen", True, "旋转"),
    "growing": Verb("wächst", "wachsen", False, "变大"),
    "shrinking": Verb("schrumpft", "schrumpfen", False, "变小"),
    "moving": Verb("bewegt", "bewegen", True, ""),
}

NOMINATIVE: Final = {"m": "der", "f": "die", "n": "das"}
ACCUSATIVE: Final = {"m": "den", "f": "die", "n": "das"}
A_NOMINATIVE: Final = {"m": "ein", "f": "eine", "n": "ein"}
A_ACCUSATIVE: Final = {"m": "einen", "f": "eine", "n": "ein"}
ENDING_NOMINATIVE: Final = {"m": "er", "f": "e", "n": "es"}
ENDING_ACCUSATIVE: Final = {"m": "en", "f": "e", "n": "es"}

_NAMES = (*COLOURS.values(), *SIZES.values(), *COUNTS.values(), *DIRECTIONS.values())

ENGLISH: Final = sorted(
    [
        *("a", "the", "is", "are", "and", "then", "show", "me"),
        *COLOURS,
        *SIZES,
        *SHAPES,
        *(f"{name}s" for name in SHAPES),
        *COUNTS,
        *DIRECTIONS,
        *VERBS,
    ]
)
_GERMAN = [
    *("ein", "eine", "einen", "der", "die", "das", "den", "sich", "nach", "und", "dann", "zeig", "mir"),
    *(german for german, _ in _NAMES),
    *(form for shape in SHAPES.values() for form in (shape.singular, shape.plural)),
    *(form for verb in VERBS.values() for form in (verb.singular, verb.plural)),
]
_CHINESE = sorted(
    set("一这色的正在向移动，。同时然后给我看和")
    | {character for _, chinese in _NAMES for character in chinese}
    | {character for shape in SHAPES.values() for character in shape.chinese + shape.classifier}
    | {character for verb in VERBS.values() for character in verb.chinese}
)

SPECIAL: Final = ("<pad>", "<end of turn>", "<en>", "<de>", "<zh>")
END_OF_TURN: Final = 1
LANGUAGES: Final = {"en": 2, "de": 3, "zh": 4}
STOPS: Final = (".", "。")

VOCABULARY: Final = list(
    dict.fromkeys(
        [
            *SPECIAL,
            *(",", *STOPS, "e", "er", "es", "en"),
            *(f"▁{word}" for word in _GERMAN),
            *(f"▁{word}" for word in ENGLISH),
            *_CHINESE,
        ]
    )
)
TOKENS: Final = {token: number for number, token in enumerate(VOCABULARY)}


def text_of(tokens: list[int]) -> str:
    """The text of tokens."""
    return "".join(VOCABULARY[token] for token in tokens).replace("▁", " ").strip()
