"""A model check: the scheduler keeps its promises, whatever happens and in whatever order.

The model is simple. It has two lists of waiting sessions, one for each phase. For each session, it knows how many
blocks of the present turn have not been read, and which turns come after that turn. It knows which batches are allowed,
but not which of them the scheduler chooses.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from daybreak_server.batching.iterations import (
    Batch,
    BatchRecord,
    IterationRules,
    Phase,
    Scheduler,
    Strategy,
    WaitUntil,
)

SESSIONS = st.integers(0, 9)
MILLISECONDS = st.integers(0, 400).map(lambda value: value / 1024)
"""Times whose sums as floats are exact."""
RULES = st.builds(
    IterationRules,
    strategy=st.sampled_from(Strategy),
    max_batch_size=st.integers(1, 5),
    max_decode_delay_s=MILLISECONDS,
    gather_size=st.integers(1, 6),
    gather_wait_s=MILLISECONDS,
    batch_timeout_s=MILLISECONDS,
    max_batch_tokens=st.sampled_from((0, 0, 1, 5, 7, 12, 40)),
)
BLOCK_TOKENS = 3


class Machine(RuleBasedStateMachine):
    """Drives a scheduler and the model side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.scheduler: Scheduler[int] = Scheduler(IterationRules(), block_tokens=BLOCK_TOKENS)
        self.now = 0.0
        self.prefill: list[tuple[int, float]] = []
        self.decode: list[tuple[int, float]] = []
        self.left: dict[int, int] = {}
        """By session: how many blocks of its present turn have not been read."""
        self.later: dict[int, list[int]] = {}
        """By session: the number of blocks of each turn after the present one."""
        self.running: Batch[int] | None = None
        self.running_began = 0.0
        self.running_waits: dict[int, float] = {}
        """By session: when its wait for the running batch began."""
        self.running_waited = 0.0
        """The longest time that a session of the running batch had waited when the batch began."""
        self.batches = 0
        self.together: set[int] = set()
        """With the strategies ``request`` and ``single``: sessions whose turns must end before other turns begin."""
        self.in_flight: set[int] = set()
        self.turns_ready = 0
        self.blocks_ready = 0
        self.blocks_read = 0
        self.blocks_dropped = 0
        self.decode_unserved_since = 0.0
        self.prefills_in_the_way = 0
        """The number of batches without decode since decode became overdue."""
        self.decodes_in_the_way = 0
        """The number of batches without prefill since prefill became due."""

    def waits(self, queue: list[tuple[int, float]]) -> set[int]:
        return {session for session, _ in queue}

    def busy(self, session: int) -> bool:
        return session in self.waits(self.prefill) | self.waits(self.decode) | self.in_flight

    @initialize(rules=RULES)
    def it_has_some_rules(self, rules: IterationRules) -> None:
        self.scheduler.rules = rules

    @rule(seconds=MILLISECONDS)
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(rules=RULES)
    def the_rules_change(self, rules: IterationRules) -> None:
        if rules.strategy != self.scheduler.rules.strategy:
            self.together = set()
        self.scheduler.rules = rules
        self.prefills_in_the_way = self.decodes_in_the_way = 0

    @rule(session=SESSIONS)
    def audio_comes(self, session: int) -> None:
        self.turns_ready += 1
        blocks = self.turns_ready % 4 + 1
        self.blocks_ready += blocks
        if self.busy(session):
            self.later.setdefault(session, []).append(blocks)
        else:
            self.prefill.append((session, self.now))
            self.left[session] = blocks
        self.scheduler.prefill_ready(session, self.now, seconds=0.5 * blocks, blocks=blocks)

    @rule(
        steps=st.lists(st.tuples(MILLISECONDS, st.integers(0, 3), st.booleans(), st.booleans()), max_size=12)
    )
    def the_device_works(self, steps: list[tuple[float, int, bool, bool]]) -> None:
        """Run some batches, one after the other. While a batch runs, audio arrives, and a session may leave if the
        batch reads only a part of its turn."""
        for seconds, comes, continues, leaves in steps:
            if self.running is None:
                self.the_device_is_idle()
            for session in range(comes):
                self.audio_comes((session + self.turns_ready) % 10)
            self.now += seconds
            if self.running is not None:
                for session in self.running.unfinished if leaves else ():
                    if session in self.in_flight:
                        self.a_session_is_forgotten(session)
                self.finish(lambda session, continues=continues: continues)  # type: ignore[misc]

    @rule(session=SESSIONS)
    def another_groups_turn_is_continued(self, session: int) -> None:
        if not self.busy(session):
            self.wants_more(session)

    @rule(session=SESSIONS)
    def a_session_is_forgotten(self, session: int) -> None:
        known = self.busy(session) or session in self.later
        self.blocks_dropped += sum(self.later.pop(session, [])) + self.left.pop(session, 0)
        self.prefill = [entry for entry in self.prefill if entry[0] != session]
        self.decode = [entry for entry in self.decode if entry[0] != session]
        self.in_flight.discard(session)
        assert self.scheduler.forget(session) == known

    @precondition(lambda self: self.running is None)
    @rule()
    def the_device_is_idle(self) -> None:
        self.check(self.scheduler.next(self.now))

    @precondition(lambda self: self.running is not None)
    @rule(data=st.data(), seconds=MILLISECONDS)
    def the_batch_has_run(self, data: st.DataObject, seconds: float) -> None:
        self.now += seconds
        self.finish(lambda session: data.draw(st.booleans()))

    def wants_more(self, session: int) -> None:
        if not self.decode:
            self.decode_unserved_since = self.now
        self.decode.append((session, self.now))
        self.scheduler.decode_ready(session, self.now)

    def finish(self, continues: Callable[[int], bool]) -> None:
        batch, self.running = self.running, None
        assert batch is not None
        tokens = 0
        unfinished = [session for session in batch.unfinished if session in self.in_flight]
        self.in_flight -= set(unfinished)
        self.prefill = [(session, self.running_waits[session]) for session in unfinished] + self.prefill
        for session in batch.sessions:
            if session in self.in_flight and continues(session):
                self.in_flight.discard(session)
                self.wants_more(session)
                tokens += 1
        for session in batch.sessions:
            if session in self.in_flight:
                self.in_flight.discard(session)
                if self.later.get(session):
                    self.prefill.append((session, self.now))
                    self.left[session] = self.later[session].pop(0)
                    if not self.later[session]:
                        del self.later[session]
        if batch.decode:
            self.decode_unserved_since = self.now
        record = self.scheduler.complete(batch, self.now, tokens=tokens)
        assert record == self.scheduler.history.last == self.expected_record(batch, tokens)

    def expected_record(self, batch: Batch[int], tokens: int) -> BatchRecord[int]:
        """What the history must say of a batch. Each block has half a second of audio."""
        phases = {(True, False): Phase.PREFILL, (False, True): Phase.DECODE, (True, True): Phase.MIXED}
        return BatchRecord(
            number=self.batches - 1,
            phase=phases[bool(batch.prefill), bool(batch.decode)],
            prefill=batch.prefill,
            blocks=batch.blocks,
            unfinished=batch.unfinished,
            decode=batch.decode,
            audio_s=0.5 * sum(batch.blocks),
            tokens=tokens,
            waited_s=self.running_waited,
            started=self.running_began,
            seconds=self.now - self.running_began,
        )

    def check(self, decision: Batch[int] | WaitUntil | None) -> None:
        rules = self.scheduler.rules
        if decision is None:
            assert not self.prefill
            assert not self.decode
        elif isinstance(decision, WaitUntil):
            assert rules.strategy is Strategy.REQUEST
            assert not self.decode
            assert len(self.prefill) < rules.max_batch_size
            assert self.now < decision.at == self.prefill[0][1] + rules.batch_timeout_s
        else:
            self.check_batch(decision, rules)
            self.take(decision)

    def check_batch(self, batch: Batch[int], rules: IterationRules) -> None:
        sessions = batch.sessions
        assert 1 <= len(sessions) <= (1 if rules.strategy is Strategy.SINGLE else rules.max_batch_size)
        assert len(set(sessions)) == len(sessions)
        assert not self.in_flight & set(sessions)
        waits = dict(self.prefill) | dict(self.decode)
        self.running_waits = waits
        self.running_waited = self.now - min(waits[session] for session in sessions)
        assert batch.waited_s == self.running_waited
        # Within a phase, no session overtakes another.
        assert list(batch.prefill) == [session for session, _ in self.prefill[: len(batch.prefill)]]
        self.check_pieces(batch, divides=rules.strategy is Strategy.MIXED and rules.max_batch_tokens > 0)
        if rules.strategy in (Strategy.ITERATION, Strategy.MIXED):
            assert list(batch.decode) == [session for session, _ in self.decode[: len(batch.decode)]]
        if rules.strategy is not Strategy.MIXED:
            assert batch.phase is not Phase.MIXED
        if rules.strategy is Strategy.ITERATION:
            self.check_starvation(batch, rules)
            queue = self.prefill if batch.prefill else self.decode
            assert len(sessions) == min(len(queue), rules.max_batch_size)
        elif rules.strategy is Strategy.MIXED and rules.max_batch_tokens:
            self.check_tokens(batch, rules)
        elif rules.strategy is Strategy.MIXED:
            assert len(sessions) == min(len(self.prefill) + len(self.decode), rules.max_batch_size)
            left = [at for session, at in self.prefill + self.decode if session not in sessions]
            assert max(waits[session] for session in sessions) <= min(left, default=math.inf)
        else:
            self.check_whole_turns(batch)

    def check_pieces(self, batch: Batch[int], *, divides: bool) -> None:
        """A batch reads at least one block of each turn that it prefills. Only its last turn may be read in part."""
        left = [self.left[session] for session in batch.prefill]
        unfinished = [
            session
            for session, blocks, rest in zip(batch.prefill, batch.blocks, left, strict=True)
            if blocks < rest
        ]
        assert all(1 <= blocks <= rest for blocks, rest in zip(batch.blocks, left, strict=True))
        assert list(batch.unfinished) == unfinished
        assert unfinished in ([], list(batch.prefill[-1:]) if divides else [])

    def check_tokens(self, batch: Batch[int], rules: IterationRules) -> None:
        """A batch has no more tokens than allowed. It has all decodes that fit, and then as much audio as fits."""
        most = max(rules.max_batch_tokens, BLOCK_TOKENS + 1)
        tokens = BLOCK_TOKENS * sum(batch.blocks) + len(batch.decode)
        assert tokens <= most
        kept = bool(self.prefill and rules.max_batch_size > 1)
        places = min(rules.max_batch_size - kept, most - kept * BLOCK_TOKENS)
        if rules.max_batch_size > 1:
            assert len(batch.decode) == min(len(self.decode), places)
            assert bool(batch.prefill) == bool(self.prefill)
        if len(batch.prefill) < len(self.prefill) or batch.unfinished:
            assert len(batch.sessions) == rules.max_batch_size or most - tokens < BLOCK_TOKENS
        self.decodes_in_the_way = 0 if batch.prefill or not self.prefill else self.decodes_in_the_way + 1
        self.prefills_in_the_way = 0 if batch.decode or not self.decode else self.prefills_in_the_way + 1
        assert max(self.decodes_in_the_way, self.prefills_in_the_way) <= 1

    def check_whole_turns(self, batch: Batch[int]) -> None:
        """The turns of a batch end before other turns begin or continue."""
        left = self.together & self.waits(self.decode)
        assert not (batch.prefill and self.decode)
        assert set(batch.decode) <= (left or self.waits(self.decode))
        self.together = left or set(batch.sessions)

    def check_starvation(self, batch: Batch[int], rules: IterationRules) -> None:
        overdue = self.decode and self.now >= self.decode_unserved_since + rules.max_decode_delay_s
        self.prefills_in_the_way = 0 if batch.decode or not overdue else self.prefills_in_the_way + 1
        assert self.prefills_in_the_way <= 1
        enough = min(rules.gather_size, rules.max_batch_size)
        due = self.prefill and (
            not self.decode
            or len(self.prefill) >= enough
            or self.now >= self.prefill[0][1] + rules.gather_wait_s
        )
        self.decodes_in_the_way = 0 if batch.prefill or not due else self.decodes_in_the_way + 1
        assert self.decodes_in_the_way <= 1
        if batch.prefill:
            assert due
        elif due:
            assert overdue

    def take(self, batch: Batch[int]) -> None:
        self.running = batch
        self.running_began = self.now
        self.batches += 1
        self.in_flight = set(batch.sessions)
        self.blocks_read += sum(batch.blocks)
        for session, blocks in zip(batch.prefill, batch.blocks, strict=True):
            self.left[session] -= blocks
            if not self.left[session]:
                del self.left[session]
        self.prefill = self.prefill[len(batch.prefill) :]
        self.decode = [entry for entry in self.decode if entry[0] not in batch.decode]

    @invariant()
    def it_knows_who_waits(self) -> None:
        assert self.scheduler.waiting(Phase.PREFILL) == len(self.prefill)
        assert self.scheduler.waiting(Phase.DECODE) == len(self.decode)
        oldest = min((at for _, at in self.prefill + self.decode), default=self.now)
        assert self.scheduler.oldest_wait_s(self.now) == self.now - oldest

    def teardown(self) -> None:
        """No audio is lost or read twice: in the end, each block has been read once, or its session was forgotten."""
        for _ in range(10_000):
            if self.running is not None:
                self.finish(lambda session: False)
            self.now += 1.0
            self.the_device_is_idle()
            if self.running is None:
                break
        assert not self.later
        assert not self.left
        assert self.blocks_read + self.blocks_dropped == self.blocks_ready


TestScheduler = Machine.TestCase
