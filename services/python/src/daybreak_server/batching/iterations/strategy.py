"""The interface of a strategy, which chooses the sessions of each step of the model.

A class that extends :class:`BatchStrategy` can be used by its import path, as in ``strategy: package.module:Class`` in
the settings of a pool, or by the name of an entry point of the group ``daybreak.strategies``. :mod:`.queues` explains
the phases *prefill* and *decode*.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from daybreak_server.batching.iterations.queues import Waiting
from daybreak_server.batching.iterations.rules import IterationRules

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice(Generic[K]):
    """The sessions of the next batch, at least one and at most ``max_batch_size``."""

    prefill: tuple[K, ...] = ()
    """Sessions whose next turn the model reads. Only sessions that wait for prefill may be chosen."""
    blocks: tuple[int, ...] = ()
    """For each session in ``prefill``, how many blocks of its turn's audio the model reads now. If this is empty, the
    model reads all blocks."""
    decode: tuple[K, ...] = ()
    """Sessions that get their next token. Only sessions that wait for decode may be chosen."""


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """No batch starts now. The scheduler asks again at the time ``at``, or earlier if a session becomes ready."""

    at: float


class WrongChoiceError(RuntimeError):
    """A strategy has chosen a batch that cannot run. The message names the strategy and says why."""


class BatchStrategy(ABC, Generic[K]):
    """Chooses the sessions of each batch. Each group has a strategy object of its own, which may keep state."""

    @abstractmethod
    def choose(self, waiting: Waiting[K], rules: IterationRules, now: float) -> Choice[K] | WaitUntil | None:
        """The sessions of the next batch. The scheduler calls this when the device is idle.

        If the result is ``None``, no batch runs until another session becomes ready. So a strategy may return ``None``
        only if no session waits. The strategy must itself prevent starvation and overtaking; the scheduler does not.

        :param rules: the current rules. They may have changed since the last call.
        """
