"""The built-in strategies. docs/11-sessions.md compares them."""

from __future__ import annotations

import itertools
from collections.abc import Hashable
from typing import TypeVar

from daybreak_server.batching.iterations import pieces
from daybreak_server.batching.iterations.queues import Waiting
from daybreak_server.batching.iterations.rules import IterationRules
from daybreak_server.batching.iterations.strategy import BatchStrategy, Choice, WaitUntil

K = TypeVar("K", bound=Hashable)


class OnePhase(BatchStrategy[K]):
    """``iteration``: a batch has one phase. In a batch with both phases, decode would take as long as prefill.

    The first of these rules that applies decides:

    1. Decode, if it has waited for ``max_decode_delay_s``. The wait counts from its last batch, or from the moment when
       a session joined its empty queue, whichever is later. This rule never runs two batches of decode in a row, so
       prefill does not starve.
    2. Decode, if prefill *gathers*. A batch of prefill interrupts all sessions that decode. So while any session
       decodes, it is better to collect some turns first. Prefill gathers until ``gather_size`` turns are ready, or
       until the first of them has waited for ``gather_wait_s``.
    3. Prefill, if a turn is ready.
    4. Decode, if a session needs its next token.

    The wait for each phase is bounded. Once all turns ahead of a ready turn have run, this turn waits for at most
    ``gather_wait_s`` plus the time of two batches. After a batch of decode, the next batch of decode waits for at most
    ``max_decode_delay_s`` plus the time of one batch of prefill. Within a phase, sessions keep their order.
    """

    def choose(self, waiting: Waiting[K], rules: IterationRules, now: float) -> Choice[K] | None:
        """See the class."""
        size = rules.max_batch_size
        prefill, decode = waiting.prefill, waiting.decode
        if decode and (not prefill or _is_due(waiting, rules, now) or _gathers(waiting, rules, now)):
            return Choice(decode=decode.first(size))
        if prefill:
            return Choice(prefill=prefill.first(size))
        return None


def _is_due(waiting: Waiting[K], rules: IterationRules, now: float) -> bool:
    """Whether decode must run now."""
    return not waiting.decoded_last and now >= waiting.decode_since + rules.max_decode_delay_s


def _gathers(waiting: Waiting[K], rules: IterationRules, now: float) -> bool:
    """Whether prefill still waits for more turns. Called only while a session needs its next token."""
    enough = min(rules.gather_size, rules.max_batch_size)
    return len(waiting.prefill) < enough and now < waiting.prefill.head + rules.gather_wait_s


class BothPhases(BatchStrategy[K]):
    """``mixed``: a batch has the sessions that have waited longest, whichever phase they wait for. If
    ``max_batch_tokens`` is set and the model can read a turn in pieces, :func:`.pieces.fill` fills the batch."""

    def choose(self, waiting: Waiting[K], rules: IterationRules, now: float) -> Choice[K] | None:
        """See the class."""
        if rules.max_batch_tokens and waiting.block_tokens:
            return pieces.fill(waiting, rules)
        size = rules.max_batch_size
        ready = [
            *((waits.at, 0, session) for session, waits in itertools.islice(waiting.decode.items(), size)),
            *((waits.at, 1, session) for session, waits in itertools.islice(waiting.prefill.items(), size)),
        ]
        if not ready:
            return None
        ready.sort(key=lambda entry: entry[:2])
        chosen = ready[:size]
        return Choice(
            prefill=tuple(session for _, begins, session in chosen if begins),
            decode=tuple(session for _, begins, session in chosen if not begins),
        )


class WholeTurns(BatchStrategy[K]):
    """``request``: all turns of a batch run to their end before other turns begin."""

    def __init__(self) -> None:
        self._together: tuple[K, ...] = ()
        """The sessions whose turns run together."""

    def choose(self, waiting: Waiting[K], rules: IterationRules, now: float) -> Choice[K] | WaitUntil | None:
        """See the class."""
        return self._choose(waiting, rules.max_batch_size, rules.batch_timeout_s, now)

    def _choose(
        self, waiting: Waiting[K], size: int, timeout_s: float, now: float
    ) -> Choice[K] | WaitUntil | None:
        prefill = waiting.prefill
        continuing = tuple(session for session in self._together if session in waiting.decode)
        # Other sessions can need decode too: after a change of the strategy, or if another group began their turns.
        decode = continuing[:size] or waiting.decode.first(size)
        if decode:
            self._together = continuing or decode
            return Choice(decode=decode)
        if not prefill:
            return None
        if len(prefill) < size and now < prefill.head + timeout_s:
            return WaitUntil(prefill.head + timeout_s)
        self._together = prefill.first(size)
        return Choice(prefill=self._together)


class OneTurn(WholeTurns[K]):
    """``single``: one turn runs at a time, from its beginning to its end."""

    def choose(self, waiting: Waiting[K], rules: IterationRules, now: float) -> Choice[K] | WaitUntil | None:
        """See the class."""
        return self._choose(waiting, 1, 0.0, now)
