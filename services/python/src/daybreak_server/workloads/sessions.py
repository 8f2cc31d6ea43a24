"""The interface of a workload that serves streaming sessions, for pools of the kind ``sessions``.

``load`` and ``warm_up`` are as in :mod:`~daybreak_server.workloads.base`. The engine manages time, queues and
journals. Before each step it decides which sessions share the batch, and calls :meth:`SessionModel.prefill` and
:meth:`SessionModel.decode` from one thread. Only ``memory`` may be called from other threads. The model manages the
caches of its sessions, in a fixed amount of memory.

A *turn* begins with audio (``prefill``) and ends when the model writes no further token (``decode``). Decoding must be
greedy, and the tokens of a session must not depend on the other sessions of its batches.

A model that also has the method ``step`` (:class:`MixedSessionModel`) computes ``prefill`` and ``decode`` in one call,
and can read the audio of a turn in pieces.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from daybreak_server.workloads.base import Group, WorkloadError
from daybreak_server.workloads.languages import LanguagePair

__all__ = [
    "LanguagePair",
    "MixedSessionModel",
    "PastTurn",
    "Prefill",
    "SessionFailedError",
    "SessionModel",
    "Shape",
    "StepResult",
    "Token",
]


class SessionFailedError(WorkloadError):
    """The model cannot continue this session. The other sessions of the batch are not affected."""

    code = "session_failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class PastTurn:
    """The audio and the tokens of a turn that was computed before the present group claimed the session.

    Usually another group computed the turn.
    ``complete``: the model has written all tokens of the turn.
    """

    audio: bytes
    tokens: tuple[int, ...]
    complete: bool = True
    last: bool = False
    """The client had ended its audio with this turn, as in :class:`Prefill`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prefill:
    """The audio of one session's next turn, or a piece of it."""

    session: str
    audio: bytes
    """16-bit PCM at 16 kHz: a whole number of blocks, except at the end of the session's audio."""
    last: bool = False
    """The client has ended its audio; the model adds the silence that it needs to finish the last words."""
    unfinished: bool = False
    """More audio of the same turn follows in a later call, so there is no token yet. The piece has whole blocks. Only
    models with ``step`` get such pieces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """The result of one step of the model for one session."""

    session: str
    token: int | None
    """The next token; ``None`` if the turn has ended."""
    text: str = ""
    """The text that the token adds."""
    ends_segment: bool = False
    """The token completes a sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The properties of a model that the engine uses."""

    pairs: tuple[LanguagePair, ...]
    block_samples: int
    """Samples of one block of audio. A turn has as many blocks as the latency multiplier says, but at most
    ``max_turn_blocks``; the last turn of a session may be shorter."""
    window_turns: int
    """How many of the newest turns another group needs to continue a session."""
    max_sessions: int
    """How many sessions fit into the fixed memory."""
    max_turn_tokens: int
    """The largest number of tokens that a turn of one block should have. Greedy decoding might never end, so the
    engine ends a session if a turn has more tokens than 4 × this number × the latency multiplier."""
    block_tokens: int = 1
    """How many positions a block takes in the language model. The block counts as this many tokens for the limit
    ``max_batch_tokens``."""
    max_turn_blocks: int | None = None
    """The most blocks in a turn, whatever clients and settings ask for. ``None``: any number."""

    def blocks_that_fit(self, multiplier: int) -> int:
        """How many blocks a turn has with this latency multiplier. Clients or settings ask for the multiplier, or the
        engine chooses it when the group falls behind."""
        return multiplier if self.max_turn_blocks is None else min(multiplier, self.max_turn_blocks)


class SessionModel(Protocol):
    """A model that serves sessions. Each rank has one object. ``shape`` is read once, after ``warm_up``.

    A call of ``prefill``, ``decode`` or ``step`` that raises must leave its sessions as they were, because the engine
    repeats the call for each session alone. If a session cannot be left as it was, return a
    :class:`SessionFailedError` for it instead.
    """

    shape: Shape

    def load(self, group: Group) -> None:
        """Load the model, and reserve the memory of all caches."""

    def warm_up(self) -> None:
        """Do once what would slow down the first turn."""

    def open(self, session: str, pair: LanguagePair, past: Sequence[PastTurn] = ()) -> None:
        """Reserve the session's memory, and feed it the turns that were computed before.

        An incomplete last turn is continued by ``decode``.

        :raises SessionFailedError: when the session cannot be opened with these turns.
        """

    def prefill(self, batch: Sequence[Prefill]) -> Sequence[Token | SessionFailedError]:
        """Read the audio of one turn for each session, and return the first token of each."""

    def decode(self, sessions: Sequence[str]) -> Sequence[Token | SessionFailedError]:
        """Return the next token of each session."""

    def close(self, session: str) -> None:
        """Free the session's memory, if it has any. This is also called after an ``open`` that raised."""

    def memory(self) -> tuple[int, int]:
        """How many bytes of the caches are in use, and how many are reserved."""


StepResult = Token | SessionFailedError | None
"""``None``: more audio of the turn follows."""


class MixedSessionModel(SessionModel, Protocol):
    """A model that computes ``prefill`` and ``decode`` in one call."""

    def step(
        self, prefill: Sequence[Prefill], decode: Sequence[str]
    ) -> tuple[Sequence[StepResult], Sequence[StepResult]]:
        """Do what :meth:`prefill` and :meth:`decode` do. Each list may be empty. No session is in both lists.

        The result of an unfinished piece is ``None``, or a :class:`SessionFailedError` if the piece fails.
        """
