"""A wish determines every byte of its answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from verification.faults.wish import Wish, parse


@given(st.integers(0, 10**6), st.integers(1, 9), st.integers(0, 9), st.integers(40, 3000))
def test_a_wish_survives_its_body_and_no_two_requests_have_the_same_answer(
    number: int, send: int, parts: int, size: int
) -> None:
    wish = Wish(parts=parts, size=size, latency_s=0.5, part_s=0.25)
    assert parse(wish.body(number, send)) == (number, send, wish)
    assert len(wish.answer(number)) == size * max(1, parts)
    assert wish.answer(number) != wish.answer(number + 1)
