"""Ranks that cannot load are started again, at a growing distance."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of Ray's import


def test_ends_in_a_row_are_paused_longer_and_longer() -> None:
    """From 3 s to 48 s; one that comes long after the last begins a new row."""
    from daybreak_server.adapters.ray.cluster import IN_A_ROW_S, consecutive_start_failures
    from daybreak_server.entrypoints.ray_serve import pause_before_end_s

    pauses, before, now = [], None, 1_000.0
    for _ in range(6):
        count = consecutive_start_failures(before, now=now)
        pauses.append(pause_before_end_s(count))
        before = {"count": count, "at": now}
        now += pauses[-1] + 60  # its own start, and a model that is slow to fail
    assert pauses == [3, 6, 12, 24, 48, 48]
    assert consecutive_start_failures(before, now=now + IN_A_ROW_S) == 1
