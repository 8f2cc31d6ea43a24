"""Forms a batch for each step of the model.

A turn of a session consists of a *prefill* (the model reads the turn's audio and returns a first token) and *decodes*
(each returns one more token). A prefill may be divided into pieces, of which only the last returns a token. The number
of decodes is not known in advance. So the scheduler forms a new batch for each step of the model (an *iteration*).
Sessions whose turn has ended leave, and sessions with new audio join.

Sessions wait in two queues, one for each phase, in the order in which they became ready. A *strategy* chooses the
sessions of each batch from these queues (:mod:`.strategies` has the built-in ones). The scheduler ensures for every
strategy that a session has one turn at a time, is in at most one batch, and loses no turn. If a strategy chooses a
batch that cannot run, the scheduler raises :class:`.WrongChoiceError` and cannot be used any more.

The caller owns the clock and the model. It calls :meth:`Scheduler.next` and runs the batch. Then it calls
:meth:`~Scheduler.decode_ready` for each session whose turn continues, and then :meth:`~Scheduler.complete`. Every other
session of the batch has ended its turn, or has a part of its prefill left. In the second case, the session waits for
prefill again, ahead of the turns that have not begun. No operation takes time in proportion to the number of waiting
sessions.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from daybreak_server.batching.iterations import strategy_names
from daybreak_server.batching.iterations.history import KEPT, BatchHistory, BatchRecord, Phase
from daybreak_server.batching.iterations.queues import Queue, Ready, Waiting
from daybreak_server.batching.iterations.rules import IterationRules
from daybreak_server.batching.iterations.strategy import BatchStrategy, Choice, WaitUntil, WrongChoiceError

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch(Generic[K]):
    """The sessions of one step."""

    number: int
    prefill: tuple[K, ...] = ()
    """Sessions whose next turn the model reads, in the order in which the strategy chose them."""
    blocks: tuple[int, ...] = ()
    """For each of these turns, how many blocks of its audio are read."""
    unfinished: tuple[K, ...] = ()
    """Sessions of ``prefill`` whose turn is read only in part. They get no token."""
    decode: tuple[K, ...] = ()
    """Sessions that get their next token, in the order in which the strategy chose them."""
    started: float
    waited_s: float
    """The longest time that a session of the batch has waited."""
    audio_s: float = 0.0
    """Seconds of audio that are read."""

    @property
    def phase(self) -> Phase:
        """What the batch does."""
        if not self.decode:
            return Phase.PREFILL
        return Phase.MIXED if self.prefill else Phase.DECODE

    @property
    def sessions(self) -> tuple[K, ...]:
        """All sessions of the batch. Those of ``prefill`` are first."""
        return self.prefill + self.decode


class Scheduler(Generic[K]):
    """The sessions of one device. Not safe for use by several threads at once."""

    def __init__(
        self, rules: IterationRules | None = None, *, kept: int = KEPT, block_tokens: int = 0
    ) -> None:
        """
        :param kept: how many records the history keeps.
        :param block_tokens: how many tokens a block of audio counts as. 0: the model reads turns only as a whole.
        """
        self.history: BatchHistory[K] = BatchHistory(kept)
        self._waiting: Waiting[K] = Waiting(block_tokens=block_tokens)
        self._unread: dict[K, Ready] = {}
        """The unread rest of turns that the running batch reads in part."""
        self._later: dict[K, deque[Ready]] = {}
        """The turns that wait for the end of an earlier turn of the same session."""
        self._running: Batch[K] | None = None
        self._in_flight: set[K] = set()
        """Sessions of the running batch, without those for which ``decode_ready`` or ``forget`` has been called."""
        self._numbers = itertools.count()
        self._rules = rules or IterationRules()
        self._strategy: BatchStrategy[K] = strategy_names.create(self._rules.strategy)

    @property
    def rules(self) -> IterationRules:
        """The rules of the next batch. They may be replaced at any time."""
        return self._rules

    @rules.setter
    def rules(self, rules: IterationRules) -> None:
        """Replace the rules. :raises ValueError: if the strategy cannot be created; the former rules then stay."""
        if rules.strategy != self._rules.strategy:
            self._strategy = strategy_names.create(rules.strategy)
        self._rules = rules

    def prefill_ready(self, session: K, now: float, *, seconds: float, blocks: int = 1) -> None:
        """Add the next turn of a session, with this many seconds and blocks of audio.

        The turn waits for the session's earlier turns. Call this method once for each turn.
        """
        ready = Ready(now, seconds, blocks)
        if session in self._waiting or session in self._in_flight:
            self._later.setdefault(session, deque()).append(ready)
        else:
            self._waiting.prefill.add(session, ready)

    def decode_ready(self, session: K, now: float) -> None:
        """Add a session that needs the next token of its turn: one of the running batch, or one whose turn
        another group began.

        :raises ValueError: if it waits already, or a part of its turn is left to read.
        """
        if session in self._waiting:
            raise ValueError(f"The session {session!r} waits already.")
        if session in self._unread:
            raise ValueError(f"The session {session!r} has no token yet: a part of its turn is left to read.")
        self._in_flight.discard(session)
        if not self._waiting.decode:
            self._waiting.decode_since = now
        self._waiting.decode.add(session, Ready(now))

    def forget(self, session: K) -> bool:
        """Remove a session. If it is in the running batch, do not call :meth:`decode_ready` for it afterwards.

        :returns: whether the scheduler knew the session.
        """
        known = session in self._in_flight or session in self._later
        self._in_flight.discard(session)
        self._later.pop(session, None)
        self._unread.pop(session, None)
        for queue in (self._waiting.prefill, self._waiting.decode):
            known = queue.remove(session) is not None or known
        return known

    def next(self, now: float) -> Batch[K] | WaitUntil | None:
        """The batch that an idle device computes now, or when to ask again. ``None`` if no session waits.

        :raises RuntimeError: if the last batch has not been completed with :meth:`complete`.
        :raises WrongChoiceError: if the strategy chooses a batch that cannot run.
        """
        if self._running is not None:
            raise RuntimeError(f"Batch {self._running.number} is still running; call complete() first.")
        choice = self._strategy.choose(self._waiting, self._rules, now)
        return self._start(choice, now) if isinstance(choice, Choice) else choice

    def complete(self, batch: Batch[K], now: float, *, tokens: int | None = None) -> BatchRecord[K]:
        """Record that the batch has been computed. First call :meth:`decode_ready` for the sessions whose
        turn continues.

        :param tokens: how many tokens the model wrote; by default one for each session except the unfinished ones.
        :raises RuntimeError: if ``batch`` is not the running batch.
        """
        if self._running is not batch:
            raise RuntimeError(f"Batch {batch.number} is not running.")
        self._running = None
        for session in batch.sessions:
            if session in self._in_flight:
                self._in_flight.discard(session)
                if session not in self._unread:
                    self._next_turn(session, now)
        for session in reversed(batch.unfinished):
            if session in self._unread:
                self._waiting.prefill.put_back(session, self._unread.pop(session))
        if batch.decode:
            self._waiting.decode_since = now
        record = BatchRecord(
            number=batch.number,
            phase=batch.phase,
            prefill=batch.prefill,
            blocks=batch.blocks,
            unfinished=batch.unfinished,
            decode=batch.decode,
            audio_s=batch.audio_s,
            tokens=len(batch.sessions) - len(batch.unfinished) if tokens is None else tokens,
            waited_s=batch.waited_s,
            started=batch.started,
            seconds=now - batch.started,
        )
        self.history.add(record)
        return record

    def waiting(self, phase: Phase) -> int:
        """The number of sessions that wait for ``phase``. For ``MIXED``, the number of all waiting sessions."""
        counts = {Phase.PREFILL: len(self._waiting.prefill), Phase.DECODE: len(self._waiting.decode)}
        return counts.get(phase, sum(counts.values()))

    def oldest_wait_s(self, now: float) -> float:
        """The longest time that a session has waited; 0 if none waits."""
        return max(0.0, now - min(self._waiting.prefill.head, self._waiting.decode.head))

    def _next_turn(self, session: K, now: float) -> None:
        """End the session's turn. If its next turn has already been added, that turn now waits for prefill."""
        later = self._later.get(session)
        if later:
            self._waiting.prefill.add(session, replace(later.popleft(), at=now))
            if not later:
                del self._later[session]

    def _start(self, choice: Choice[K], now: float) -> Batch[K]:
        size = len(choice.prefill) + len(choice.decode)
        if not 1 <= size <= self._rules.max_batch_size:
            raise self._wrong(
                f"a batch of {size} sessions; it may have from 1 to {self._rules.max_batch_size}"
            )
        turns = self._take(self._waiting.prefill, choice.prefill, Phase.PREFILL)
        taken = turns + self._take(self._waiting.decode, choice.decode, Phase.DECODE)
        blocks = choice.blocks or tuple(ready.blocks for ready in turns)
        audio_s, self._unread = self._read(choice.prefill, turns, blocks)
        self._in_flight.update(choice.prefill, choice.decode)
        self._waiting.decoded_last = not choice.prefill
        self._running = Batch(
            number=next(self._numbers),
            prefill=choice.prefill,
            blocks=blocks,
            unfinished=tuple(self._unread),
            decode=choice.decode,
            started=now,
            waited_s=max(0.0, now - min(ready.at for ready in taken)),
            audio_s=audio_s,
        )
        return self._running

    def _take(self, queue: Queue[K], sessions: tuple[K, ...], phase: Phase) -> list[Ready]:
        """Remove these sessions from the queue of a phase."""
        taken: list[Ready] = []
        for session in sessions:
            ready = queue.remove(session)
            if ready is None:
                raise self._wrong(f"the session {session!r}, which does not wait for {phase.value}")
            taken.append(ready)
        return taken

    def _read(
        self, sessions: tuple[K, ...], turns: list[Ready], blocks: tuple[int, ...]
    ) -> tuple[float, dict[K, Ready]]:
        """How many seconds of audio these blocks have, and what is left of the turns that are read in part."""
        if len(blocks) != len(turns):
            raise self._wrong(f"blocks for {len(blocks)} turns, but {len(turns)} turns")
        seconds, left = 0.0, {}
        for session, ready, count in zip(sessions, turns, blocks, strict=True):
            if not 1 <= count <= ready.blocks:
                raise self._wrong(
                    f"{count} blocks of a turn of {session!r}, which has {ready.blocks} to read"
                )
            if count < ready.blocks and not self._waiting.block_tokens:
                raise self._wrong("a part of a turn, but the model reads turns only as a whole")
            audio_s, rest = ready.read(count)
            seconds += audio_s
            if rest is not None:
                left[session] = rest
        return seconds, left

    def _wrong(self, chosen: str) -> WrongChoiceError:
        return WrongChoiceError(f"The strategy {self._rules.strategy!r} has chosen {chosen}.")
