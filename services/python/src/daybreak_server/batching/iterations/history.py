"""Records the latest batches in a ring of fixed size."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
KEPT = 4096
"""How many records a history keeps unless it is created with another number."""


class Phase(StrEnum):
    """What a batch does."""

    PREFILL = "prefill"
    """The model reads the audio of a turn, and returns the turn's first token."""
    DECODE = "decode"
    """The model returns the next token."""
    MIXED = "mixed"
    """Some sessions prefill, others decode."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRecord(Generic[K]):
    """A batch that has run."""

    number: int
    """The number of the batch. Each scheduler counts its batches from 0."""
    phase: Phase
    prefill: tuple[K, ...]
    blocks: tuple[int, ...]
    """For each session of ``prefill``: how many blocks of its audio the model read."""
    unfinished: tuple[K, ...]
    """Those sessions of ``prefill`` whose turn the model has not read to its end yet."""
    decode: tuple[K, ...]
    audio_s: float
    """Seconds of audio that the model read."""
    tokens: int
    """Tokens that the model wrote."""
    waited_s: float
    """The longest time that a session of the batch had waited."""
    started: float
    seconds: float
    """How long the model took."""

    @property
    def size(self) -> int:
        """The number of sessions."""
        return len(self.prefill) + len(self.decode)


class BatchHistory(Generic[K]):
    """The newest records, in the order of the batches, and how many batches of each phase and size have run."""

    def __init__(self, kept: int = KEPT) -> None:
        self._records: deque[BatchRecord[K]] = deque(maxlen=kept)
        self.sizes: Counter[tuple[Phase, int]] = Counter()

    def add(self, record: BatchRecord[K]) -> None:
        """Append a record. If the ring is full, this drops the oldest record."""
        self._records.append(record)
        self.sizes[record.phase, record.size] += 1

    def __len__(self) -> int:
        """How many records are kept."""
        return len(self._records)

    def __iter__(self) -> Iterator[BatchRecord[K]]:
        """All records that are kept, oldest first."""
        return iter(self._records)

    @property
    def by_size(self) -> dict[str, dict[int, int]]:
        """How many batches of each size there were, by phase."""
        found: dict[str, dict[int, int]] = {}
        for (phase, size), count in sorted(self.sizes.items()):
            found.setdefault(phase.value, {})[size] = count
        return found

    def rates(self, now: float, *, window_s: float = 10.0) -> tuple[float, float, float]:
        """Seconds of audio read, tokens written and batches ended: each per second, over the last ``window_s``."""
        audio_s, tokens, batches = 0.0, 0, 0
        for record in reversed(self._records):
            if record.started + record.seconds <= now - window_s:
                break
            audio_s, tokens, batches = audio_s + record.audio_s, tokens + record.tokens, batches + 1
        return audio_s / window_s, tokens / window_s, batches / window_s

    @property
    def last(self) -> BatchRecord[K] | None:
        """The newest record."""
        return self._records[-1] if self._records else None
