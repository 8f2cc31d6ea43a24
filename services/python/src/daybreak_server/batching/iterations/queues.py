"""The sessions that wait for a step of the model, in two queues, one for each phase. A strategy chooses among them."""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Ready:
    """Since when a session waits, and the seconds of audio of its turn (0 in decode)."""

    at: float
    audio_s: float = 0.0


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
        """Since when the first session waits; infinite if none waits."""
        return next(iter(self._waiting.values())).at if self._waiting else math.inf

    def first(self, count: int) -> tuple[K, ...]:
        """The first ``count`` sessions."""
        return tuple(itertools.islice(self._waiting, count))

    def items(self) -> Iterator[tuple[K, Ready]]:
        """All sessions with their waits. Reading all of them in each step takes longer the more there are."""
        return iter(self._waiting.items())

    def add(self, session: K, ready: Ready) -> None:
        """Append a session. For the scheduler."""
        self._waiting[session] = ready

    def remove(self, session: K) -> Ready | None:
        """Remove a session, if it waits. For the scheduler."""
        return self._waiting.pop(session, None)


@dataclass(slots=True)
class Waiting(Generic[K]):
    """What a strategy sees. It reads this, and changes nothing."""

    prefill: Queue[K] = field(default_factory=Queue)
    """Sessions whose next turn has all of its audio."""
    decode: Queue[K] = field(default_factory=Queue)
    """Sessions that need the next token of their turn."""
    decoded_last: bool = False
    """Whether the last batch was one of decode alone."""
    decode_since: float = 0.0
    """Since when decode waits: the end of its last batch, or the time when its queue ceased to be empty."""

    def __contains__(self, session: object) -> bool:
        """Whether this session waits for either phase."""
        return session in self.prefill or session in self.decode
