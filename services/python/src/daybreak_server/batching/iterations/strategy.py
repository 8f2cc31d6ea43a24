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
    """Sessions whose next turn the model reads. Each of them waits for prefill."""
    blocks: tuple[int, ...] = ()
    """How many blocks of audio of each of these turns are read now. Empty: all blocks of all turns."""
    decode: tuple[K, ...] = ()
    """Sessions that get their next token. Each of them waits for decode."""


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """No batch starts now. Ask again at this time, or when a session has become ready."""

    at: float


class WrongChoiceError(RuntimeError):
    """A strategy has chosen a batch that cannot run. The message names the strategy and says why."""


class BatchStrategy(ABC, Generic[K]):
    """Chooses the sessions of each batch. Each group has one object, which may remember what it needs."""

    @abstractmethod
    def choose(self, waiting: Waiting[K], rules: IterationRules, now: float) -> Choice[K] | WaitUntil | None:
        """The sessions of the next batch, for an idle device.

        ``None`` says that no batch runs until another session becomes ready, so a strategy returns it only if none
        waits. The scheduler prevents neither starvation nor overtaking: that is the strategy's task.

        :param rules: the present rules, which may be others than in the last call.
        """
