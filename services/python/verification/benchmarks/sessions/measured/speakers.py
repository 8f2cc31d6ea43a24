"""The audio of the users. Every user plays the speech model's clips in a loop, and begins at one of eight places."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from daybreak_server.domain.sessions import SAMPLE_BYTES, SAMPLE_RATE
from daybreak_server.workloads.sessions import Prefill, Token
from daybreak_server.workloads.speech.clips import clips
from daybreak_server.workloads.speech.model import Speech

TARGETS = ("de", "zh")
PLACES = 8
"""The number of places in the loop at which users begin. If there are more users, several begin at the same place."""
_PAUSE_S = 1.0
_GOLDEN = 0.6180339887
"""The golden ratio minus one. The fractional parts of its first n multiples are spread evenly, whatever n is."""
Turns = Sequence[tuple[int, ...]]
"""The tokens of each turn of a session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """A user. Users with the same place and language send the same audio, and should get the same text."""

    place: int
    target: str
    starts_s: float
    """Seconds until the user begins: less than the length of a turn, and different for each user."""
    audio: bytes

    def turn(self, number: int, samples: int) -> bytes:
        """The audio of a turn."""
        return self.audio[number * samples * SAMPLE_BYTES : (number + 1) * samples * SAMPLE_BYTES]


def speakers(count: int, *, for_s: float, turn_s: float) -> list[Speaker]:
    """``count`` users, each with audio for at least ``for_s`` seconds."""
    pause = bytes(int(_PAUSE_S * SAMPLE_RATE) * SAMPLE_BYTES)
    loop = b"".join(clip.audio() + pause for clip in clips())
    size = int((for_s + turn_s) * SAMPLE_RATE) * SAMPLE_BYTES
    endless = loop * (2 + size // len(loop))
    starts = [place * len(loop) // PLACES // SAMPLE_BYTES * SAMPLE_BYTES for place in range(PLACES)]
    audio = [endless[start : start + size] for start in starts]
    return [
        Speaker(
            place=user % PLACES,
            target=TARGETS[user // PLACES % len(TARGETS)],
            starts_s=user * _GOLDEN % 1 * turn_s,
            audio=audio[user % PLACES],
        )
        for user in range(count)
    ]


class References:
    """What the model writes for each user if every batch has only this user's session."""

    def __init__(self, model: Speech, *, for_s: float) -> None:
        samples = model.shape.block_samples
        users = speakers(PLACES * len(TARGETS), for_s=for_s, turn_s=samples / SAMPLE_RATE)
        self._turns: Mapping[tuple[int, str], Turns] = {
            (user.place, user.target): _alone(model, user, samples) for user in users
        }

    def differs(self, speaker: Speaker, turns: Turns) -> bool:
        """Whether the tokens of any of these turns differ from the reference of this user."""
        return list(turns) != list(self._turns[speaker.place, speaker.target][: len(turns)])

    @property
    def tokens_per_turn(self) -> float:
        """The mean number of tokens of a turn."""
        turns = [turn for reference in self._turns.values() for turn in reference]
        return sum(map(len, turns)) / len(turns)


def _alone(model: Speech, speaker: Speaker, samples: int) -> Turns:
    name = "alone"
    model.open(name, next(pair for pair in model.shape.pairs if pair.target == speaker.target))
    turns = []
    for number in range(len(speaker.audio) // (samples * SAMPLE_BYTES)):
        tokens = []
        (answer,) = model.prefill([Prefill(session=name, audio=speaker.turn(number, samples))])
        while isinstance(answer, Token) and answer.token is not None:
            tokens.append(answer.token)
            (answer,) = model.decode([name])
        turns.append(tuple(tokens))
    model.close(name)
    return turns
