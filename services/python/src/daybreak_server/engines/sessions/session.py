"""One session as its owner knows it: the audio that waits for the model, the turn in progress, and the segment in
progress.

:meth:`Session.add_audio` adds audio. When there is enough audio for a turn, or the client has ended its audio,
:meth:`Session.ready` returns the number of samples in the next turn. :meth:`Session.read` removes these samples, and
returns them as the model's input, whole or in pieces. :meth:`Session.write` takes each token of the model and returns
the commit for the journal. This module does no I/O and reads no clock.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from daybreak_server.domain.causes import Cause
from daybreak_server.domain.sessions import (
    SAMPLE_BYTES,
    SAMPLE_RATE,
    SessionClaim,
    SessionCommit,
    SessionEnd,
    SessionEventType,
    Turn,
)
from daybreak_server.workloads.sessions import PastTurn, Prefill, Shape, Token

EventWithData = tuple[SessionEventType, Mapping[str, Any]]
ENDLESS_FACTOR = 4
"""A session fails if a turn has more tokens than this × ``Shape.max_turn_tokens`` × the latency multiplier."""


class EndlessTurnError(Exception):
    """The model does not end a turn."""


def _ms(position: int) -> int:
    return position * 1000 // SAMPLE_RATE


class Session:
    """See the module."""

    def __init__(self, claim: SessionClaim, shape: Shape) -> None:
        record = claim.record
        self.id = record.session.id
        self.lease = claim.lease
        self._fitting = shape.blocks_that_fit
        self.least_multiplier = self._fitting(record.session.latency_multiplier)
        """The latency multiplier that the client requested, but at most what the model allows."""
        self.multiplier = record.latency_multiplier
        self.opened_ms = record.opened_ms
        self.received = record.received
        self.input_ended = record.input_ended
        self.announced: int | None = None
        """If a turn waits for the model: its number of samples."""
        self.turn: Turn | None = None
        """The turn in progress."""
        self._unread = b""
        """Audio that belongs to the turn in progress and that the model has not read yet."""
        self._block = shape.block_samples
        self._max_tokens = shape.max_turn_tokens * ENDLESS_FACTOR
        self.position = claim.turns[-1].end if claim.turns else record.consumed
        """The position after the last turn."""
        self.past = _past(claim)
        self._pending = bytearray(claim.audio[(self.position - claim.audio_start) * SAMPLE_BYTES :])
        self._starts = deque((turn.start for turn in claim.turns), maxlen=max(1, shape.window_turns))
        if claim.turns and not claim.turns[-1].complete:
            self.turn = claim.turns[-1]
        self._number = 0
        self._segment, self._segment_text = claim.segment, claim.segment_text
        self._segment_start = claim.segment_start

    @property
    def consumed(self) -> int:
        """The position up to which all turns are complete."""
        return self.turn.start if self.turn is not None else self.position

    @property
    def turn_samples(self) -> int:
        """The number of samples in a turn."""
        return self._block * self._fitting(self.multiplier)

    def add_audio(self, audio: bytes, *, input_ended: bool) -> None:
        """Add audio that follows the audio received so far."""
        self._pending += audio
        self.received += len(audio) // SAMPLE_BYTES
        self.input_ended = self.input_ended or input_ended

    def ready(self) -> int | None:
        """The number of samples in the next turn. ``None`` if there is too little audio, or if a turn waits for the
        model or is in progress."""
        if self.announced is not None or self.turn is not None:
            return None
        pending = len(self._pending) // SAMPLE_BYTES
        if self.input_ended and pending <= self.turn_samples:
            return pending
        return self.turn_samples if pending >= self.turn_samples else None

    def blocks(self, samples: int) -> int:
        """How many blocks a turn of this many samples has.

        The last turn may have no samples. It counts as one block, because the model still has to end its text.
        """
        return max(1, math.ceil(samples / self._block))

    def read(self, blocks: int | None = None) -> Prefill:
        """Remove and return the next ``blocks`` blocks of the announced turn; ``None``: all blocks that are left.

        The first call begins the turn.
        """
        if self.turn is None:
            self._begin()
        assert self.turn is not None
        size = len(self._unread) if blocks is None else blocks * self._block * SAMPLE_BYTES
        audio, self._unread = self._unread[:size], self._unread[size:]
        unfinished = bool(self._unread)
        last = self.turn.last and not unfinished
        return Prefill(session=self.id, audio=audio, last=last, unfinished=unfinished)

    def _begin(self) -> None:
        """Begin the announced turn, and take its audio from the pending audio."""
        samples = self.announced
        assert samples is not None, "no turn was announced"
        self._unread = bytes(self._pending[: samples * SAMPLE_BYTES])
        del self._pending[: samples * SAMPLE_BYTES]
        start, self.position = self.position, self.position + samples
        last = self.input_ended and not self._pending
        self.turn = Turn(start=start, end=self.position, complete=False, last=last)
        self._starts.append(start)
        self.announced = None

    def write(self, token: Token) -> SessionCommit:
        """The commit of the model's next token. :raises EndlessTurnError: when the turn has too many tokens."""
        turn = self.turn
        assert turn is not None, "no turn is in progress"
        if token.token is None:
            return self._complete(replace(turn, complete=True))
        self.turn = turn = replace(turn, tokens=(*turn.tokens, token.token))
        if len(turn.tokens) > self._max_tokens * self.multiplier:
            raise EndlessTurnError(f"the model has written {len(turn.tokens)} tokens in one turn")
        return self._commit(tuple(self._events(token, turn)), turn=turn)

    def degrade(self, multiplier: int, *, lag_ms: float) -> SessionCommit | None:
        """Change the length of turns, from the next turn on. Returns ``None`` if the length does not change."""
        multiplier = max(self._fitting(multiplier), self.least_multiplier)
        if multiplier == self.multiplier:
            return None
        self.multiplier = multiplier
        data = {"latency_multiplier": multiplier, "lag_ms": round(lag_ms)}
        return self._commit(((SessionEventType.DEGRADED, data),), latency_multiplier=multiplier)

    def fail(self, cause: Cause) -> SessionCommit:
        """The commit that ends the session because it cannot continue."""
        return self._commit((), end=SessionEnd.FAILED, error=cause)

    def _complete(self, turn: Turn) -> SessionCommit:
        self.turn = None
        end = SessionEnd.FINISHED if turn.last else None
        return self._commit((), turn=turn, keep_from=self._starts[0], end=end)

    def _events(self, token: Token, turn: Turn) -> list[EventWithData]:
        events: list[EventWithData] = []
        if token.text:
            self._segment_text += token.text
            data = {"text": token.text, "segment": self._segment, "audio_ms": _ms(turn.end)}
            events.append((SessionEventType.TEXT, data))
        if token.ends_segment:
            segment = {
                "segment": self._segment,
                "text": self._segment_text.strip(),
                "start_ms": _ms(self._segment_start),
                "end_ms": _ms(turn.end),
            }
            events.append((SessionEventType.SEGMENT, segment))
            self._segment, self._segment_text, self._segment_start = self._segment + 1, "", turn.end
        return events

    def _commit(self, events: Sequence[EventWithData], **fields: Any) -> SessionCommit:
        self._number += 1
        return SessionCommit(lease=self.lease, number=self._number, events=tuple(events), **fields)


def _past(claim: SessionClaim) -> tuple[PastTurn, ...]:
    def audio(turn: Turn) -> bytes:
        begin, end = ((position - claim.audio_start) * SAMPLE_BYTES for position in (turn.start, turn.end))
        return claim.audio[begin:end]

    return tuple(
        PastTurn(audio=audio(turn), tokens=turn.tokens, complete=turn.complete, last=turn.last)
        for turn in claim.turns
    )
