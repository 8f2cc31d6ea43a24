"""A model for sessions. It sleeps for as long as a real model would compute.

The words of a session depend only on its audio and its target language. The model has no caches. The memory that it
reports is a fixed number of bytes for each session.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from daybreak_server.workloads.base import Group
from daybreak_server.workloads.sessions import (
    LanguagePair,
    PastTurn,
    Prefill,
    SessionFailedError,
    Shape,
    StepResult,
    Token,
)
from daybreak_server.workloads.simulated_speech import words
from daybreak_server.workloads.simulated_speech.spec import PAIRS, SimulatedSpeechOptions, options_of

SESSION_BYTES = 65_536
"""The memory that the model reports for each session."""
WINDOW_TURNS = 2
SAMPLE_RATE = 16_000
SAMPLE_BYTES = 2


@dataclass(slots=True)
class _Turn:
    digest: bytes
    words: int
    """How many words the turn has."""
    last: bool
    place: int = 0
    """How many words of the turn have been written."""
    stop_checked: bool = True
    """Whether the model has decided if a full stop follows the last written word."""


@dataclass(slots=True)
class _Session:
    target: str
    turn: _Turn | None = None
    unfinished: bytes = b""
    """The audio of a turn that is not complete yet. The rest follows in a later call."""
    before: int = words.START
    """The last token that was written."""


class SimulatedSpeech:
    """Implements :class:`daybreak_server.workloads.sessions.MixedSessionModel`."""

    def __init__(self, sleep: Callable[[float], None] = time.sleep) -> None:
        self._sleep = sleep
        self._sessions: dict[str, _Session] = {}
        self._use(SimulatedSpeechOptions())

    def load(self, group: Group) -> None:
        """Take the options."""
        self._use(options_of(group.options))

    def _use(self, options: SimulatedSpeechOptions) -> None:
        self._options = options
        samples = SAMPLE_RATE * options.block_ms // 1000
        self._block_bytes = samples * SAMPLE_BYTES
        self.shape = Shape(
            pairs=PAIRS,
            block_samples=samples,
            window_turns=WINDOW_TURNS,
            max_sessions=options.max_sessions,
            max_turn_tokens=words.TOKENS_A_BLOCK * 2,
            block_tokens=options.block_tokens,
        )

    def warm_up(self) -> None:
        """Do nothing."""

    def open(self, session: str, pair: LanguagePair, past: Sequence[PastTurn] = ()) -> None:
        """Begin a session, or continue it after the turns that were computed before.

        :raises SessionFailedError: if there is no room, if the model does not translate this pair, or if this model
            cannot have computed ``past``.
        """
        if session in self._sessions:
            raise SessionFailedError(f"session {session} is open already")
        if pair not in PAIRS:
            raise SessionFailedError(
                f"this model does not translate {pair.source_name} to {pair.target_name}"
            )
        if len(self._sessions) >= self._options.max_sessions:
            raise SessionFailedError(f"all {self._options.max_sessions} sessions of this group are taken")
        opened = _Session(target=pair.target)
        for turn in past:
            self._feed(opened, turn)
        self._sessions[session] = opened

    def _feed(self, session: _Session, past: PastTurn) -> None:
        if session.turn is not None:
            raise SessionFailedError("a turn of the past is not complete, and is not the last one")
        turn = self._turn(past.audio, last=past.last)
        for token in past.tokens:
            if not 0 <= token <= len(words.WORDS[session.target]):
                raise SessionFailedError(
                    f"a turn of the past has the token {token}, which this model does not know"
                )
            session.before = token
            turn.place += token != words.STOP
            turn.stop_checked = token == words.STOP
        session.turn = None if past.complete else turn

    def _turn(self, audio: bytes, *, last: bool) -> _Turn:
        if len(audio) % SAMPLE_BYTES or (len(audio) % self._block_bytes and not last) or not (audio or last):
            raise SessionFailedError(
                f"a turn has {len(audio)} bytes of audio, and needs a whole number of blocks of {self._block_bytes}"
            )
        turn = words.digest(audio)
        return _Turn(digest=turn, words=words.length(turn, len(audio) / self._block_bytes), last=last)

    def prefill(self, batch: Sequence[Prefill]) -> Sequence[Token | SessionFailedError]:
        """Begin a turn in each session, and return the first token of each turn."""
        return [answer for answer in self.step(batch, ())[0] if answer is not None]

    def decode(self, sessions: Sequence[str]) -> Sequence[Token | SessionFailedError]:
        """Return the next token of each session."""
        return [answer for answer in self.step((), sessions)[1] if answer is not None]

    def step(
        self, prefill: Sequence[Prefill], decode: Sequence[str]
    ) -> tuple[Sequence[StepResult], Sequence[StepResult]]:
        """Do both phases. The call takes the time of all items, plus the larger of the two phases' fixed times."""
        options = self._options
        blocks = sum(math.ceil(len(item.audio) / self._block_bytes) for item in prefill)
        call_ms = max(options.prefill_ms if prefill else 0.0, options.decode_ms if decode else 0.0)
        items_ms = blocks * options.prefill_item_ms + len(decode) * options.decode_item_ms
        self._sleep((call_ms + items_ms) / 1000)
        return [self._read(item) for item in prefill], [self._continue(name) for name in decode]

    def _read(self, item: Prefill) -> StepResult:
        session = self._sessions.get(item.session)
        if session is None:
            return SessionFailedError(f"session {item.session} is not open here")
        if session.turn is not None:
            return SessionFailedError(f"the present turn of session {item.session} has not ended")
        audio, session.unfinished = session.unfinished + item.audio, b""
        try:
            turn = self._turn(audio, last=item.last)
        except SessionFailedError as exc:
            return exc
        if item.unfinished:
            session.unfinished = audio
            return None
        session.turn = turn
        return self._next(item.session, session, turn)

    def _continue(self, name: str) -> Token | SessionFailedError:
        session = self._sessions.get(name)
        if session is None:
            return SessionFailedError(f"session {name} is not open here")
        if session.turn is None:
            return SessionFailedError(f"no turn of session {name} is open")
        return self._next(name, session, session.turn)

    def _next(self, name: str, session: _Session, turn: _Turn) -> Token:
        token = self._token(session, turn)
        if token is None:
            session.turn = None
            return Token(session=name, token=None)
        written = words.text(token, session.target, before=session.before)
        session.before = token
        return Token(session=name, token=token, text=written, ends_segment=token == words.STOP)

    def _token(self, session: _Session, turn: _Turn) -> int | None:
        before, target = session.before, session.target
        if not turn.stop_checked:
            turn.stop_checked = True
            if words.ends_sentence(turn.digest, target, before=before, place=turn.place):
                return words.STOP
        if turn.place < turn.words:
            token = words.choose(turn.digest, target, before=before, place=turn.place)
            turn.place += 1
            turn.stop_checked = False
            return token
        return words.STOP if turn.last and before > words.STOP else None

    def close(self, session: str) -> None:
        """Forget the session. Closing a session that is not open does nothing."""
        self._sessions.pop(session, None)

    def memory(self) -> tuple[int, int]:
        """The bytes in use, and the bytes reserved."""
        return len(self._sessions) * SESSION_BYTES, self._options.max_sessions * SESSION_BYTES
