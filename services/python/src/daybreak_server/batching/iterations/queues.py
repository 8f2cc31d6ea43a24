"""The sessions that wait for a step of the model, in two queues, one for each phase. A strategy chooses among them.

The phases are *prefill* (the model reads the audio of a turn) and *decode* (it writes the next token of a turn).
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Ready:
    """When a session began to wait, and how much audio of its turn is still unread (none in the decode phase)."""

    at: float
    audio_s: float = 0.0
    blocks: int = 1
    """The number of blocks of this audio."""

    def read(self, blocks: int) -> tuple[float, Ready | None]:
        """The seconds of audio in the next ``blocks`` blocks, and what is left after them (``None``: nothing)."""
        if blocks == self.blocks:
            return self.audio_s, None
        audio_s = self.audio_s * blocks / self.blocks
        return audio_s, replace(self, audio_s=self.audio_s - audio_s, blocks=self.blocks - blocks)


@dataclass(slots=True)
class Queue(Generic[K]):
    """The sessions that wait for one phase, in the order in which they became ready. Any of them can leave in constant
    time."""

    _waiting: OrderedDict[K, Ready] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        """How many sessions wait."""
        return len(self._waiting)

    def __contains__(self, session: object) -> bool:
        """Whether this session waits."""
        return session in self._waiting

    @property
    def head(self) -> float:
        """When the first session began to wait; infinity if no session waits."""
        return next(iter(self._waiting.values())).at if self._waiting else math.inf

    def first(self, count: int) -> tuple[K, ...]:
        """The first ``count`` sessions."""
        return tuple(itertools.islice(self._waiting, count))

    def items(self) -> Iterator[tuple[K, Ready]]:
        """Each session with its :class:`Ready`. The more sessions wait, the longer it takes to read all of them."""
        return iter(self._waiting.items())

    def add(self, session: K, ready: Ready) -> None:
        """Append a session. Only the scheduler calls this."""
        self._waiting[session] = ready

    def put_back(self, session: K, ready: Ready) -> None:
        """Put a session before all others. Only the scheduler calls this."""
        self._waiting[session] = ready
        self._waiting.move_to_end(session, last=False)

    def remove(self, session: K) -> Ready | None:
        """Remove a session, if it waits. Only the scheduler calls this."""
        return self._waiting.pop(session, None)


@dataclass(slots=True)
class Waiting(Generic[K]):
    """The waiting sessions, as a strategy sees them. A strategy only reads this object."""

    prefill: Queue[K] = field(default_factory=Queue)
    """Sessions that have all audio of their next turn. Sessions whose turn the model has already read in part come
    first."""
    decode: Queue[K] = field(default_factory=Queue)
    """Sessions that need the next token of their turn."""
    block_tokens: int = 0
    """How many tokens a block of audio counts as. 0: the model reads turns only as a whole."""
    decoded_last: bool = False
    """Whether the last batch had only sessions in the decode phase."""
    decode_since: float = 0.0
    """The later of two times: the end of the last batch that decoded, and the last moment when a session joined
    ``decode`` while this queue was empty."""

    def __contains__(self, session: object) -> bool:
        """Whether this session waits for either phase."""
        return session in self.prefill or session in self.decode
