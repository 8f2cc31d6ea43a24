"""Which sessions share a step of the model, and when."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import pytest

from daybreak_server.batching.iterations import (
    Batch,
    IterationRules,
    Phase,
    Scheduler,
    Strategy,
    WaitUntil,
)


def started(scheduler: Scheduler[str], now: float) -> Batch[str]:
    batch = scheduler.next(now)
    assert isinstance(batch, Batch)
    return batch


def run(scheduler: Scheduler[str], at: float, until: float, continuing: Iterable[str] = ()) -> Batch[str]:
    """Run the next batch. The sessions of ``continuing`` want another token after this batch."""
    batch = started(scheduler, at)
    for session in continuing:
        scheduler.decode_ready(session, until)
    scheduler.complete(batch, until)
    return batch


def ready(rules: IterationRules, *sessions: str, at: float = 0.0) -> Scheduler[str]:
    scheduler: Scheduler[str] = Scheduler(rules)
    for session in sessions:
        scheduler.prefill_ready(session, at, seconds=0.5)
    return scheduler


def test_sessions_join_and_leave_between_two_steps() -> None:
    """No session waits for the end of another session's turn. That is the purpose of the strategy ``iteration``."""
    scheduler = ready(IterationRules(gather_size=1), "a", "b")
    assert run(scheduler, 0.0, 1.0, "ab").sessions == ("a", "b")
    scheduler.prefill_ready("c", 1.0, seconds=0.5)
    assert run(scheduler, 1.0, 2.0, "c").prefill == ("c",)
    assert run(scheduler, 2.0, 3.0, "ac").decode == ("a", "b", "c")
    assert run(scheduler, 3.0, 4.0).decode == ("a", "c")
    assert scheduler.next(4.0) is None


def test_a_batch_has_one_phase_and_prefill_goes_first() -> None:
    """Prefill goes first even if decode has waited longer, unless decode has waited for ``max_decode_delay_s``."""
    scheduler = ready(IterationRules(gather_size=1, max_decode_delay_s=9), "a")
    run(scheduler, 0.0, 1.0, "a")
    scheduler.prefill_ready("b", 2.0, seconds=0.5)
    assert started(scheduler, 2.0).phase is Phase.PREFILL


def test_decode_does_not_starve_under_endless_prefill() -> None:
    """Decode gets one batch whenever it has waited for ``max_decode_delay_s``. Prefill gets all other batches."""
    scheduler = ready(IterationRules(gather_size=1, max_decode_delay_s=2.5), "a")
    run(scheduler, 0.0, 1.0, "a")
    phases = []
    for step in range(1, 13):
        scheduler.prefill_ready(f"new {step}", step, seconds=0.5)
        batch = started(scheduler, step)
        if batch.decode:
            scheduler.decode_ready("a", step + 1)
        scheduler.complete(batch, step + 1)
        phases.append(batch.phase[0])
    assert "".join(phases) == "pppdpppdpppd"


def test_prefill_does_not_starve_under_a_tiny_decode_delay() -> None:
    """Decode that has waited too long gets only one batch. The next batch is prefill."""
    rules = IterationRules(gather_size=1, max_decode_delay_s=0, max_batch_size=1)
    scheduler = ready(rules, *"abcdef")
    phases = []
    for step in range(8):
        batch = started(scheduler, step)
        for session in batch.sessions:
            scheduler.decode_ready(session, step + 1)
        scheduler.complete(batch, step + 1)
        phases.append(batch.phase[0])
    assert "".join(phases) == "pdpdpdpd"


def test_prefill_gathers_while_a_session_decodes() -> None:
    """Prefill waits until enough turns are ready."""
    scheduler = ready(IterationRules(gather_size=3, gather_wait_s=9), "a")
    run(scheduler, 0.0, 1.0, "a")
    scheduler.prefill_ready("b", 1.0, seconds=0.5)
    scheduler.prefill_ready("c", 1.0, seconds=0.5)
    assert run(scheduler, 1.0, 2.0, "a").phase is Phase.DECODE
    scheduler.prefill_ready("d", 2.0, seconds=0.5)
    assert started(scheduler, 2.0).prefill == ("b", "c", "d")


def test_prefill_gathers_for_a_limited_time() -> None:
    """The limit counts from the time at which the first waiting turn became ready."""
    scheduler = ready(IterationRules(gather_size=3, gather_wait_s=0.5), "a")
    run(scheduler, 0.0, 1.0, "a")
    scheduler.prefill_ready("b", 1.0, seconds=0.5)
    assert run(scheduler, 1.25, 1.4, "a").phase is Phase.DECODE
    assert started(scheduler, 1.5).prefill == ("b",)


def test_prefill_starts_at_once_if_nothing_decodes() -> None:
    """An idle device gains nothing by waiting."""
    assert started(ready(IterationRules(gather_size=32, gather_wait_s=9), "a"), 0.0).sessions == ("a",)


def test_a_gather_size_above_the_batch_size_counts_as_the_batch_size() -> None:
    """A batch that is full does not wait for further turns, which could not join it."""
    scheduler = ready(IterationRules(max_batch_size=2, gather_size=32, gather_wait_s=99), "a")
    run(scheduler, 0.0, 1.0, "a")
    scheduler.prefill_ready("b", 1.0, seconds=0.5)
    scheduler.prefill_ready("c", 1.0, seconds=0.5)
    assert started(scheduler, 1.0).prefill == ("b", "c")


def test_a_session_has_one_turn_at_a_time() -> None:
    """Audio that comes during a turn waits until the turn is over, even if batches may have both phases."""
    scheduler = ready(IterationRules(strategy=Strategy.MIXED), "a")
    scheduler.prefill_ready("a", 0.0, seconds=0.25)
    assert run(scheduler, 0.0, 1.0, "a").prefill == ("a",)
    only_decode = run(scheduler, 1.0, 2.0)
    assert (only_decode.prefill, only_decode.decode) == ((), ("a",))
    last = started(scheduler, 2.0)
    scheduler.prefill_ready("a", 2.5, seconds=0.125)
    scheduler.decode_ready("a", 3.0)
    scheduler.complete(last, 3.0)
    assert last.audio_s == 0.25
    assert run(scheduler, 3.0, 4.0).decode == ("a",)
    assert run(scheduler, 4.0, 5.0).audio_s == 0.125


def test_the_mixed_strategy_takes_the_sessions_that_have_waited_longest() -> None:
    """A batch contains the sessions that have waited longest, whichever phase they wait for."""
    scheduler = ready(IterationRules(strategy=Strategy.MIXED, max_batch_size=3), "a", "b")
    run(scheduler, 0.0, 2.0, "ab")
    scheduler.prefill_ready("c", 1.0, seconds=0.5)
    scheduler.prefill_ready("d", 3.0, seconds=0.5)
    batch = started(scheduler, 3.0)
    assert (batch.phase, batch.prefill, batch.decode) == (Phase.MIXED, ("c",), ("a", "b"))


def test_a_batch_of_the_request_strategy_runs_to_its_end_before_others_join() -> None:
    """If a turn ends before the others of its batch, its place in the batch stays empty."""
    scheduler = ready(IterationRules(strategy=Strategy.REQUEST, max_batch_size=2), "a", "b", "c")
    assert run(scheduler, 0.0, 1.0, "ab").prefill == ("a", "b")
    assert run(scheduler, 1.0, 2.0, "b").decode == ("a", "b")
    assert run(scheduler, 2.0, 3.0, "b").decode == ("b",)
    assert run(scheduler, 3.0, 4.0).decode == ("b",)
    assert started(scheduler, 4.0).prefill == ("c",)


def test_the_request_strategy_waits_for_a_full_batch_or_its_timeout() -> None:
    """The scheduler returns the time at which to call it again."""
    rules = IterationRules(strategy=Strategy.REQUEST, max_batch_size=2, batch_timeout_s=0.5)
    scheduler = ready(rules, "a")
    assert scheduler.next(0.25) == WaitUntil(0.5)
    assert started(scheduler, 0.5).prefill == ("a",)
    full = ready(rules, "a", "b")
    assert started(full, 0.0).prefill == ("a", "b")


def test_the_single_strategy_runs_one_turn_at_a_time() -> None:
    """A turn runs to its end before the turn of another session begins."""
    scheduler = ready(IterationRules(strategy=Strategy.SINGLE), "a", "b")
    assert run(scheduler, 0.0, 1.0, "a").sessions == ("a",)
    assert run(scheduler, 1.0, 2.0).sessions == ("a",)
    assert run(scheduler, 2.0, 3.0).sessions == ("b",)


def test_a_turn_that_another_group_began_is_continued() -> None:
    """Every strategy continues such a turn, although the turn has not been in a batch of this group."""
    for strategy in Strategy:
        scheduler = ready(IterationRules(strategy=strategy, batch_timeout_s=0))
        scheduler.decode_ready("a", 0.0)
        scheduler.prefill_ready("a", 0.0, seconds=0.5)
        assert run(scheduler, 0.0, 1.0).decode == ("a",)
        assert run(scheduler, 1.0, 2.0).prefill == ("a",)


def test_a_forgotten_session_leaves_its_queue_and_its_batch() -> None:
    """The session's later turns are removed too. A new session may use the same name at once."""
    scheduler = ready(IterationRules(), "a", "b")
    scheduler.prefill_ready("b", 0.0, seconds=9)
    batch = started(scheduler, 0.0)
    assert scheduler.forget("b")
    assert not scheduler.forget("b")
    scheduler.prefill_ready("b", 0.5, seconds=0.25)
    scheduler.complete(batch, 1.0)
    assert run(scheduler, 1.0, 2.0).audio_s == 0.25
    assert scheduler.next(2.0) is None


def test_a_change_of_the_rules_holds_from_the_next_batch_on() -> None:
    """Turns in progress continue under the new rules."""
    scheduler = ready(IterationRules(strategy=Strategy.REQUEST, max_batch_size=2), *"abc")
    run(scheduler, 0.0, 1.0, "ab")
    scheduler.rules = IterationRules(gather_size=1)
    assert run(scheduler, 1.0, 1.01, "c").prefill == ("c",)
    scheduler.rules = IterationRules(strategy=Strategy.REQUEST, max_batch_size=1)
    assert run(scheduler, 1.01, 2.0, "a").decode == ("a",)
    assert run(scheduler, 2.0, 3.0).decode == ("a",)
    assert run(scheduler, 3.0, 4.0).decode == ("b",)


def test_every_batch_leaves_a_record() -> None:
    """The record has phase, sessions, tokens, wait and duration.

    The history keeps only the newest records, but it counts the sizes of all batches.
    """
    scheduler: Scheduler[str] = Scheduler(IterationRules(), kept=2)
    scheduler.prefill_ready("a", 1.0, seconds=0.5)
    scheduler.prefill_ready("b", 2.0, seconds=0.25)
    batch = started(scheduler, 4.0)
    assert scheduler.oldest_wait_s(4.0) == 0.0
    record = scheduler.complete(batch, 7.0, tokens=1)
    assert scheduler.history.last is record
    assert (record.number, record.phase, record.prefill, record.size) == (0, Phase.PREFILL, ("a", "b"), 2)
    assert (record.audio_s, record.tokens, record.waited_s) == (0.75, 1, 3.0)
    assert (record.started, record.seconds) == (4.0, 3.0)
    for number in range(3):
        scheduler.prefill_ready("c", 8.0, seconds=0.5)
        run(scheduler, 8.0 + number, 9.0)
    assert [kept.number for kept in scheduler.history] == [2, 3]
    assert scheduler.history.sizes == {(Phase.PREFILL, 2): 1, (Phase.PREFILL, 1): 3}


def test_a_wrong_use_is_refused() -> None:
    """A wrong use would lose a session, or put a session into two batches."""
    scheduler = ready(IterationRules(), "a")
    with pytest.raises(ValueError, match="waits already"):
        scheduler.decode_ready("a", 0.0)
    batch = started(scheduler, 0.0)
    with pytest.raises(RuntimeError, match="is still running"):
        scheduler.next(0.0)
    scheduler.decode_ready("a", 1.0)
    with pytest.raises(ValueError, match="waits already"):
        scheduler.decode_ready("a", 1.0)
    scheduler.complete(batch, 1.0)
    with pytest.raises(RuntimeError, match="not running"):
        scheduler.complete(batch, 1.0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_batch_size", 0),
        ("max_batch_size", 33),
        ("gather_size", 0),
        ("gather_wait_ms", -1),
        ("max_batch_tokens", -1),
        ("max_decode_delay_ms", float("nan")),
        ("batch_timeout_ms", float("inf")),
        ("strategy", "fast"),
    ],
)
def test_an_invalid_rule_is_refused_by_name(name: str, value: float) -> None:
    """The message names the rule. For an unknown strategy, the message names the strategy."""
    with pytest.raises(ValueError, match="fast" if name == "strategy" else name):
        IterationRules.of({name: value})


def test_rules_become_settings_and_come_back() -> None:
    """``of`` and ``settings`` use the names of a pool's settings."""
    settings = {"strategy": "mixed", "max_batch_size": 8, "gather_wait_ms": 125.0, "max_batch_tokens": 64}
    rules = IterationRules.of(settings)
    expected = IterationRules(
        strategy=Strategy.MIXED, max_batch_size=8, gather_wait_s=0.125, max_batch_tokens=64
    )
    assert rules == expected
    assert settings.items() <= rules.settings().items()
    assert IterationRules.of(rules.settings()) == rules


def calls_of_a_step(waiting: int) -> int:
    """Count the calls and returns of functions in three steps and one ``forget``.

    ``waiting``: the number of sessions in each queue.
    """
    scheduler: Scheduler[str] = Scheduler(IterationRules(max_batch_size=4))
    for number in range(waiting):
        scheduler.decode_ready(f"d{number}", 0.0)
        scheduler.prefill_ready(f"p{number}", 0.0, seconds=0.5)
    calls = 0

    def count(_frame: object, _event: str, _argument: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        for _ in range(3):
            batch = started(scheduler, 1.0)
            for session in batch.sessions:
                scheduler.decode_ready(session, 1.0)
            scheduler.complete(batch, 1.0)
        scheduler.forget(f"p{waiting // 2}")
    finally:
        sys.setprofile(None)
    return calls


def test_the_cost_of_a_step_does_not_grow_with_the_number_of_sessions() -> None:
    """A step makes the same number of calls for a hundred sessions and for ten thousand."""
    assert calls_of_a_step(10_000) == calls_of_a_step(100)
