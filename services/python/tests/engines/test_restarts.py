"""Ranks that cannot load are restarted with a growing backoff."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # importing Ray raises one


def test_the_backoff_grows_with_consecutive_start_failures() -> None:
    """The backoff grows from 3 s to 48 s. If a failure comes long after the previous one, the backoff is 3 s again."""
    from daybreak_server.adapters.ray.cluster import START_FAILURE_WINDOW_S, consecutive_start_failures
    from daybreak_server.engines.common.start_backoff import start_backoff_s

    pauses, previous, now = [], None, 1_000.0
    for _ in range(6):
        count = consecutive_start_failures(previous, now=now)
        pauses.append(start_backoff_s(count))
        previous = {"count": count, "at": now}
        now += pauses[-1] + 60  # the time to start the rank and to fail while loading
    assert pauses == [3, 6, 12, 24, 48, 48]
    assert consecutive_start_failures(previous, now=now + START_FAILURE_WINDOW_S) == 1
