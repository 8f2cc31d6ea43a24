"""Chooses the sessions of the model's next step.

A turn of a session is one *prefill* (the model reads its audio and returns a first token) and then some
*decodes* (each returns one token). Their number is not known in advance. So the scheduler forms a new batch
for each step, which is an *iteration*. Sessions whose turn has ended leave, and sessions with new audio join.

Sessions wait in two queues, one for each phase, in the order in which they became ready. By default a batch
has one phase, because a step takes as long as its longest member. The first of these rules that applies
decides:

1. Decode, if it has waited for ``max_decode_delay_s`` since its last batch. Only one batch of decode runs, so prefill
   does not starve either.
2. Decode, if prefill *gathers*. While any session decodes, a prefill interrupts all of them, so it is better to collect
   some turns first. Prefill gathers until ``gather_size`` turns are ready or the first has waited ``gather_wait_s``.
3. Prefill, if a turn is ready.
4. Decode, if a session needs its next token.

So a ready turn runs at the latest ``gather_wait_s`` and two batches after the turns before it in its queue. A
batch of decode runs at the latest ``max_decode_delay_s`` and one batch of prefill after the previous one.
Within a phase, sessions keep their order.

The caller owns the clock and the model. It calls :meth:`Scheduler.next` and runs the batch. Then it calls
:meth:`~Scheduler.decode_ready` for each session whose turn continues, and then :meth:`~Scheduler.ran`. A
session of the batch for which ``decode_ready`` was not called has ended its turn. No operation is linear in
the number of sessions that wait.
"""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict, deque
from collections.abc import Hashable, Iterable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from daybreak_server.batching.iterations.rules import IterationRules, Strategy
from daybreak_server.batching.iterations.trace import KEPT, BatchRecord, Phase, Trace

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class _Ready:
    """A session that waits, with the start of its wait and the seconds of audio of its turn (0 in decode)."""

    at: float
    audio_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch(Generic[K]):
    """The sessions of one step."""

    number: int
    prefill: tuple[K, ...] = ()
    """Sessions whose next turn begins, in the order in which they became ready."""
    decode: tuple[K, ...] = ()
    """Sessions that get their next token, in the order in which they became ready."""
    started: float
    waited_s: float
    """The longest time that a session of the batch has waited."""
    audio_s: float = 0.0
    """Seconds of audio of all turns that begin."""

    @property
    def phase(self) -> Phase:
        """What the batch does."""
        if not self.decode:
            return Phase.PREFILL
        return Phase.MIXED if self.prefill else Phase.DECODE

    @property
    def sessions(self) -> tuple[K, ...]:
        """All sessions of the batch. Those that begin a turn are first."""
        return self.prefill + self.decode


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """No batch starts now. Call again at this time, or when a session has become ready."""

    at: float


@dataclass(slots=True)
class _Queue(Generic[K]):
    """Sessions of one phase in the order in which they became ready. Any of them can leave in constant time."""

    waiting: OrderedDict[K, _Ready] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self.waiting)

    def __contains__(self, session: object) -> bool:
        return session in self.waiting

    @property
    def head(self) -> float:
        """Since when the first session waits; infinite if none waits."""
        return next(iter(self.waiting.values())).at if self.waiting else math.inf

    def first(self, count: int) -> tuple[K, ...]:
        """The first ``count`` sessions."""
        return tuple(itertools.islice(self.waiting, count))


class Scheduler(Generic[K]):
    """The sessions of one device. Not safe for use by several threads at once."""

    def __init__(self, rules: IterationRules | None = None, *, kept: int = KEPT) -> None:
        """``kept``: how many records the trace keeps."""
        self.rules = rules or IterationRules()
        """The rules of the next batch. They may be replaced at any time."""
        self.trace: Trace[K] = Trace(kept)
        self._prefill: _Queue[K] = _Queue()
        self._decode: _Queue[K] = _Queue()
        self._later: dict[K, deque[_Ready]] = {}
        """Turns of sessions whose present turn is not over yet."""
        self._running: Batch[K] | None = None
        self._in_flight: set[K] = set()
        """Sessions of the running batch without a report yet."""
        self._together: tuple[K, ...] = ()
        """The sessions whose turns run to their end before others begin, in the strategies that do so."""
        self._numbers = itertools.count()
        self._decoded_last = False
        """Whether the last batch was one of decode."""
        self._decode_since = 0.0
        """Since when decode waits. This is the end of its last batch, or the time when its queue ceased to be
        empty."""

    def prefill_ready(self, session: K, now: float, *, seconds: float) -> None:
        """Add the next turn of a session, with this many seconds of audio.

        It waits for the session's earlier turns. Call it once for each turn.
        """
        ready = _Ready(now, seconds)
        if session in self._prefill or session in self._decode or session in self._in_flight:
            self._later.setdefault(session, deque()).append(ready)
        else:
            self._prefill.waiting[session] = ready

    def decode_ready(self, session: K, now: float) -> None:
        """Add a session that needs the next token of its turn. It is in the running batch, or another group
        began its turn.

        :raises ValueError: if it waits already.
        """
        if session in self._prefill or session in self._decode:
            raise ValueError(f"The session {session!r} waits already.")
        self._in_flight.discard(session)
        if not self._decode:
            self._decode_since = now
        self._decode.waiting[session] = _Ready(now)

    def forget(self, session: K) -> bool:
        """Remove a session. If it is in the running batch, its result must not be reported.

        :returns: whether the scheduler knew the session.
        """
        known = session in self._in_flight or session in self._later
        self._in_flight.discard(session)
        self._later.pop(session, None)
        for queue in (self._prefill, self._decode):
            known = queue.waiting.pop(session, None) is not None or known
        return known

    def next(self, now: float) -> Batch[K] | WaitUntil | None:
        """The batch that an idle device computes now. ``None`` if no session waits.

        :raises RuntimeError: if the last batch has not been reported with :meth:`ran`.
        """
        if self._running is not None:
            raise RuntimeError(f"Batch {self._running.number} runs still; report it with ran() first.")
        match self.rules.strategy:
            case Strategy.ITERATION:
                return self._one_phase(now)
            case Strategy.MIXED:
                return self._both_phases(now)
            case Strategy.REQUEST:
                return self._whole_turns(now, self.rules.max_batch_size, self.rules.batch_timeout_s)
            case Strategy.SINGLE:
                return self._whole_turns(now, 1, 0.0)

    def ran(self, batch: Batch[K], now: float, *, tokens: int | None = None) -> BatchRecord[K]:
        """Record that the batch has been computed. First call :meth:`decode_ready` for the sessions whose
        turn continues.

        :param tokens: the tokens that it wrote; by default as many as it has sessions.
        :raises RuntimeError: if it is not the running batch.
        """
        if self._running is not batch:
            raise RuntimeError(f"Batch {batch.number} is not running.")
        self._running = None
        for session in batch.sessions:
            if session in self._in_flight:
                self._in_flight.discard(session)
                self._next_turn(session, now)
        if batch.decode:
            self._decode_since = now
        record = BatchRecord(
            number=batch.number,
            phase=batch.phase,
            prefill=batch.prefill,
            decode=batch.decode,
            audio_s=batch.audio_s,
            tokens=len(batch.sessions) if tokens is None else tokens,
            waited_s=batch.waited_s,
            started=batch.started,
            seconds=now - batch.started,
        )
        self.trace.add(record)
        return record

    def waiting(self, phase: Phase) -> int:
        """The number of sessions that wait for a phase, or for both phases if ``phase`` is ``MIXED``."""
        counts = {Phase.PREFILL: len(self._prefill), Phase.DECODE: len(self._decode)}
        return counts.get(phase, sum(counts.values()))

    def oldest_wait_s(self, now: float) -> float:
        """The longest time that a session has waited; 0 if none waits."""
        return max(0.0, now - min(self._prefill.head, self._decode.head))

    def _next_turn(self, session: K, now: float) -> None:
        """End a turn. The next one begins if its audio has arrived."""
        later = self._later.get(session)
        if later:
            self._prefill.waiting[session] = _Ready(now, later.popleft().audio_s)
            if not later:
                del self._later[session]

    def _one_phase(self, now: float) -> Batch[K] | None:
        size = self.rules.max_batch_size
        if self._decode and (not self._prefill or self._decode_is_due(now) or self._gathers(now)):
            return self._start(now, decode=self._decode.first(size))
        if self._prefill:
            return self._start(now, prefill=self._prefill.first(size))
        return None

    def _decode_is_due(self, now: float) -> bool:
        return not self._decoded_last and now >= self._decode_since + self.rules.max_decode_delay_s

    def _gathers(self, now: float) -> bool:
        """Whether prefill still waits for more turns. Called only while a session needs its next token."""
        enough = min(self.rules.gather_size, self.rules.max_batch_size)
        return len(self._prefill) < enough and now < self._prefill.head + self.rules.gather_wait_s

    def _both_phases(self, now: float) -> Batch[K] | None:
        size = self.rules.max_batch_size
        ready = [
            *((waits.at, 0, session) for session, waits in _pairs(self._decode, size)),
            *((waits.at, 1, session) for session, waits in _pairs(self._prefill, size)),
        ]
        if not ready:
            return None
        ready.sort(key=lambda entry: entry[:2])
        chosen = ready[:size]
        return self._start(
            now,
            prefill=tuple(session for _, begins, session in chosen if begins),
            decode=tuple(session for _, begins, session in chosen if not begins),
        )

    def _whole_turns(self, now: float, size: int, timeout_s: float) -> Batch[K] | WaitUntil | None:
        going_on = [session for session in self._together if session in self._decode]
        # Sessions outside the batch decode too after a change of the strategy, or if another group began their turn.
        decode = tuple(going_on[:size]) or self._decode.first(size)
        if decode:
            self._together = tuple(going_on) or decode
            return self._start(now, decode=decode)
        if not self._prefill:
            return None
        if len(self._prefill) < size and now < self._prefill.head + timeout_s:
            return WaitUntil(self._prefill.head + timeout_s)
        self._together = self._prefill.first(size)
        return self._start(now, prefill=self._together)

    def _start(self, now: float, *, prefill: tuple[K, ...] = (), decode: tuple[K, ...] = ()) -> Batch[K]:
        taken = [self._prefill.waiting.pop(session) for session in prefill]
        since = min(
            ready.at for ready in [*taken, *(self._decode.waiting.pop(session) for session in decode)]
        )
        self._in_flight.update(prefill, decode)
        self._decoded_last = not prefill
        self._running = Batch(
            number=next(self._numbers),
            prefill=prefill,
            decode=decode,
            started=now,
            waited_s=max(0.0, now - since),
            audio_s=sum(ready.audio_s for ready in taken),
        )
        return self._running


def _pairs(queue: _Queue[K], count: int) -> Iterable[tuple[K, _Ready]]:
    return itertools.islice(queue.waiting.items(), count)
