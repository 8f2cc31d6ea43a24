"""The words that the simulated model writes, and the rule that chooses them.

A turn's tokens depend only on its audio, on the target language, on the last token before the turn, and on whether the
turn is the last one. So if a chunk of audio is lost or doubled, all text from its turn on changes, because later turns
begin elsewhere. If only the content of a chunk changes, the text of its turn changes. The text of later turns changes
too, until a turn ends with the same token as it would without the change. A group that gets the newest turns continues
exactly as the previous group would have.
"""

from __future__ import annotations

import hashlib
import math

STOP = 0
"""The token of the full stop."""
START = -1
"""Stands for the token before the first token of a session."""
TOKENS_A_BLOCK = 3
"""A turn of one block has one to this many words. A full stop may follow each word."""
_SENTENCE_ENDS = 5
"""How many words a sentence has on average."""

_ENGLISH = """
a an all and any at big blue came come day did door every far fast few for found from full gave go good green
had has he her here high his home house how in it its just keep kept know large last late leave light like
long look made many may more most move near never new next night no not now of off old on once one only open
or other our out over part place play put ran read red right said same saw say see set she short show side
small so some soon stand still such sun take than that the their them then there they this those time to too
took train tree turn two under up us use very walk was water way we well went were what when where which while
white who why will wind with word work year yes yet you
"""
_GERMAN = """
aber alle alles als also alt am andere auch auf aus bald baum bei beide bin bis blau bleibt brot buch da dann
das dein den denn der des dich die dies doch dort drei du ein eine einem einen er es etwas fest fluss frau
früh für gab ganz gehen geht gern gestern ging groß gut haben hat haus heute hier hin hoch ich ihm ihr im
immer in ist ja jahr jeder jetzt kam kann kein kind klein kommt kurz lang langsam leicht licht macht man mehr
mein mensch mit morgen muss nach nacht nah neben nein neu nicht nie noch nun nur oben oder oft ohne ort rot
ruft sagt sah schnell schon sehr sein seit sie sind so steht stein still tag tief tür über um und uns unter
vier viel vom von vor wald wann war was wasser weg weil weit wenn wer wie wieder wind wir wo wohl wort zeit zu
zug zum zwei
"""
_CHINESE = (
    "的一是在不了有和人这中大为上个国我以要他时来用们生到作地于出就分对成会可主发年动同工也能下过子说产种面而方后多定行"
    "学法所民得经十三之进着等部度家电力里如水化高自二理起小物现实加量都两体制机当使点从业本去把性好应开它合还因由其些然"
)
WORDS = {"en": tuple(_ENGLISH.split()), "de": tuple(_GERMAN.split()), "zh": tuple(_CHINESE)}
"""The words of each target language. Token ``n`` stands for the item ``n - 1``."""


def digest(audio: bytes) -> bytes:
    """The digest of a turn's audio, on which its words depend."""
    return hashlib.blake2b(audio, digest_size=16).digest()


def length(turn: bytes, blocks: float) -> int:
    """How many words a turn has, given the digest of its audio and its number of blocks: none if it has no audio."""
    return 1 + _number(turn, "length", 0) % (TOKENS_A_BLOCK * max(1, math.ceil(blocks))) if blocks else 0


def choose(turn: bytes, target: str, *, before: int, place: int) -> int:
    """The token at the place ``place`` of a turn, if the token before it is ``before``."""
    return 1 + _number(turn, target, place, before) % len(WORDS[target])


def ends_sentence(turn: bytes, target: str, *, before: int, place: int) -> bool:
    """Whether a full stop follows the token ``before``. It can follow only a word."""
    return before > STOP and _number(turn, f"stop {target}", place, before) % _SENTENCE_ENDS == 0


def text(token: int, target: str, *, before: int) -> str:
    """The text that a token adds, if the token before it is ``before``."""
    if token == STOP:
        return "。" if target == "zh" else "."
    word = WORDS[target][token - 1]
    if target == "zh":
        return word
    if before <= STOP:
        word = word[0].upper() + word[1:]
    return word if before == START else f" {word}"


def _number(turn: bytes, *facts: object) -> int:
    return int.from_bytes(hashlib.blake2b(turn + repr(facts).encode(), digest_size=8).digest())
