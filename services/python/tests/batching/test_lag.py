"""How far sessions are behind, and when the latency multiplier changes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daybreak_server.batching.iterations.lag import LagRules, LagState, observe, percentile, session_lag_s

RULES = LagRules(limit_s=2.0, highest=4, raise_after_s=1.0, lower_after_s=10.0)


def after(state: LagState, lags: dict[float, float]) -> LagState:
    for at, lag_s in lags.items():
        state = observe(state, lag_s, at, RULES)
    return state


def test_audio_that_makes_no_turn_yet_is_no_lag() -> None:
    """The model can process audio only when a whole turn has arrived."""
    assert session_lag_s(received_s=10.4, consumed_s=10.0, turn_s=0.5) == 0.0
    assert session_lag_s(received_s=12.0, consumed_s=10.0, turn_s=0.5) == 1.5


def test_a_file_that_is_sent_at_once_makes_no_lag() -> None:
    """Only audio that could have been spoken by now counts."""
    assert session_lag_s(received_s=600.0, consumed_s=5.0, turn_s=0.5, elapsed_s=4.0) == 0.0
    assert session_lag_s(received_s=600.0, consumed_s=5.0, turn_s=0.5, elapsed_s=8.0) == 2.5


def test_a_percentile_is_a_value_that_enough_others_do_not_exceed() -> None:
    """The nearest-rank method is used, so one late session of ten shows in p95."""
    assert percentile([], 0.95) == 0.0
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    assert percentile([float(value) for value in range(1, 101)], 0.95) == 95.0
    assert percentile([0.0] * 9 + [7.0], 0.95) == 7.0


def test_a_lasting_lag_raises_the_multiplier_step_by_step() -> None:
    """If the lag still exceeds the limit at the highest multiplier, the group is full."""
    assert after(LagState(), {0: 3, 0.5: 3}).multiplier == 1
    assert after(LagState(), {0: 3, 1: 3}).multiplier == 2
    assert after(LagState(), {0: 3, 1: 3, 2: 3}) == LagState(multiplier=4, high_since=2)
    assert after(LagState(), {0: 3, 1: 3, 2: 3, 3: 3}).full


def test_a_short_peak_changes_nothing() -> None:
    """The multiplier rises only after the lag has exceeded the limit for ``raise_after_s`` without interruption."""
    assert after(LagState(), {0: 3, 0.9: 1, 1.0: 3, 1.9: 3}).multiplier == 1


def test_the_multiplier_falls_when_the_lag_has_been_small_for_long() -> None:
    """First the group admits sessions again. Then its turns become shorter."""
    full = LagState(multiplier=4, full=True)
    assert after(full, {0: 0.1, 9: 0.1}).full
    assert after(full, {0: 0.1, 10: 0.1}) == LagState(multiplier=4, low_since=10)
    assert after(full, {0: 0.1, 10: 0.1, 20: 0.1}).multiplier == 2
    assert after(full, {0: 0.1, 10: 0.1, 20: 0.1, 30: 0.1, 99: 0.1}).multiplier == 1


def test_a_middling_lag_changes_nothing() -> None:
    """A lag that is below the limit but not small changes nothing. So the multiplier does not oscillate."""
    state = LagState(multiplier=2)
    assert after(state, dict.fromkeys(range(100), 1.0)) == state
    assert after(state, {0: 0.1, 5: 1.0, 6: 0.1, 15: 0.1}).multiplier == 2


@given(st.lists(st.tuples(st.floats(0, 20), st.floats(0, 5)), max_size=60))
def test_the_multiplier_stays_within_its_bounds_and_moves_one_step(steps: list[tuple[float, float]]) -> None:
    """A group is full only at the highest multiplier."""
    state, now = LagState(), 0.0
    for seconds, lag_s in steps:
        now += seconds
        before, state = state, observe(state, lag_s, now, RULES)
        assert state.multiplier in {before.multiplier, before.multiplier * 2, before.multiplier // 2}
        assert 1 <= state.multiplier <= 4
        assert not state.full or state.multiplier == 4
        assert state.multiplier <= before.multiplier or lag_s > RULES.limit_s
        assert state.multiplier >= before.multiplier or lag_s < RULES.limit_s / 4


def test_new_bounds_hold_at_once() -> None:
    """The rules may change while sessions run."""
    assert observe(LagState(multiplier=4), 1.0, 0.0, LagRules(highest=2)).multiplier == 2
    assert observe(LagState(multiplier=1), 1.0, 0.0, LagRules(lowest=2)).multiplier == 2


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("max_latency_multiplier", {"lowest": 5, "highest": 4}),
        ("latency_multiplier", {"lowest": 0}),
        ("limit_s", {"limit_s": 0.0}),
        ("small", {"small": 1.0}),
    ],
)
def test_an_invalid_rule_is_refused_by_name(name: str, values: dict[str, float]) -> None:
    """The person who sets a rule sees the message, so the message names the rule."""
    with pytest.raises(ValueError, match=name):
        LagRules(**values)  # type: ignore[arg-type]
