"""How many traces begin."""

from __future__ import annotations

import pytest

from daybreak_server.observability.sampling import Sampler


class _Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def _drawn(sampler: Sampler, clock: _Clock, *, seconds: float, per_s: int) -> int:
    count = 0
    for _ in range(round(seconds * per_s)):
        clock.now += 1 / per_s
        count += sampler.draw()
    return count


def test_rare_requests_are_all_sampled() -> None:
    clock = _Clock()
    assert _drawn(Sampler(1.0, 10, clock=clock), clock, seconds=100, per_s=8) == 800


def test_frequent_requests_begin_no_more_traces_than_the_limit() -> None:
    clock = _Clock()
    sampler = Sampler(1.0, 10, clock=clock)
    first = _drawn(sampler, clock, seconds=1, per_s=3000)
    assert 19 <= first <= 20  # the limiter begins with 10 and adds 10 in this second
    assert 990 <= _drawn(sampler, clock, seconds=100, per_s=3000) <= 1000


def test_a_pause_allows_no_more_than_one_second_does() -> None:
    clock = _Clock()
    sampler = Sampler(1.0, 10, clock=clock)
    clock.now += 3600
    assert sum(sampler.draw() for _ in range(100)) == 10


@pytest.mark.parametrize(("per_s", "expected"), [(0.1, 10), (2.5, 250)])
def test_a_limit_need_not_be_a_whole_number(per_s: float, expected: int) -> None:
    clock = _Clock()
    drawn = _drawn(Sampler(1.0, per_s, clock=clock), clock, seconds=100, per_s=50)
    assert abs(drawn - expected) <= 3


def test_the_ratio_is_drawn_before_the_limit() -> None:
    clock = _Clock()
    assert _drawn(Sampler(0.0, 10, clock=clock), clock, seconds=10, per_s=100) == 0
    half = _drawn(Sampler(0.5, 1e6, clock=clock), clock, seconds=20, per_s=100)
    assert 850 < half < 1150  # 1000 are expected; the standard deviation is 22
