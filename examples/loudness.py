"""An example workload of streaming sessions: it writes how loud each half second is. See docs/07-adding-a-workload.md.

Run it from the root of the repository:

    PYTHONPATH=examples DAYBREAK_POOLS__LOUDNESS__WORKLOAD=loudness:SPEC .venv/bin/daybreakd dev
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Sequence

from daybreak_server.workloads.base import Group, WorkloadSpec
from daybreak_server.workloads.sessions import (
    LanguagePair,
    PastTurn,
    Prefill,
    SessionFailedError,
    Shape,
    Token,
)

BLOCK = 8_000  # samples at 16 kHz: half a second
WORDS = ("silence", "soft", "loud")  # a token is the index of its word
# The lower limits of a soft and of a loud block, for the mean of the absolute values of its 16-bit samples.
SOFT, LOUD = 100, 3_000
SESSION_BYTES = 1_000
PAIR = LanguagePair(source="en", target="en", source_name="English", target_name="English")

SPEC = WorkloadSpec(
    name="loudness",
    kind="sessions",
    implementation="loudness:Loudness",
    pairs=lambda options: [PAIR],  # the API refuses all others
)


class Loudness:
    """The model of one group."""

    shape = Shape(
        pairs=(PAIR,),
        block_samples=BLOCK,
        window_turns=1,  # if a session moves, its new group needs only the turn in progress
        max_sessions=64,
        max_turn_tokens=1,
    )

    def load(self, group: Group) -> None:
        """Load the model, and reserve the memory of all sessions.

        This model needs memory only for the words that it has yet to write.
        """
        self.step_s = group.options.get("step_ms", 0) / 1000
        self.words: dict[str, list[int]] = {}

    def warm_up(self) -> None:
        """Do nothing: the first turn is as fast as later ones."""

    def open(self, session: str, pair: LanguagePair, past: Sequence[PastTurn] = ()) -> None:
        """Begin a session, or continue one that another group has begun."""
        if len(self.words) >= self.shape.max_sessions:
            raise SessionFailedError("The group has no memory for another session.")
        self.words[session] = []
        if past and not past[-1].complete:
            self.words[session] = words_of(past[-1].audio)[len(past[-1].tokens) :]

    def prefill(self, batch: Sequence[Prefill]) -> Sequence[Token]:
        """Read the audio of one turn of each session, and return the first token of each turn."""
        for turn in batch:
            self.words[turn.session] = words_of(turn.audio)
        return self.decode([turn.session for turn in batch])

    def decode(self, sessions: Sequence[str]) -> Sequence[Token]:
        """Return the next token of each session."""
        time.sleep(self.step_s)  # the time that a step of a real model takes
        return [self.next_token(session) for session in sessions]

    def next_token(self, session: str) -> Token:
        """The next token of the session's turn. A result whose ``token`` is ``None`` ends the turn."""
        if not self.words[session]:
            return Token(session=session, token=None)
        token = self.words[session].pop(0)
        return Token(session=session, token=token, text=f"{WORDS[token]} ", ends_segment=token == 0)

    def close(self, session: str) -> None:
        """Free the session's memory."""
        self.words.pop(session, None)

    def memory(self) -> tuple[int, int]:
        """The bytes in use, and the bytes that are reserved."""
        return len(self.words) * SESSION_BYTES, self.shape.max_sessions * SESSION_BYTES


def words_of(audio: bytes) -> list[int]:
    """A token for each block. The last block of a session may be shorter."""
    samples = array("h", audio)
    blocks = [samples[first : first + BLOCK] for first in range(0, len(samples), BLOCK)]
    means = [sum(map(abs, block)) / len(block) for block in blocks]
    return [(mean >= SOFT) + (mean >= LOUD) for mean in means]
