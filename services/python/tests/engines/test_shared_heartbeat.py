"""The memory that a leader shares with its watchdog."""

from __future__ import annotations

from daybreak_server.batching.iterations.rules import MAX_BATCH_SIZE
from daybreak_server.domain.sessions import SessionId
from daybreak_server.engines.common.shared_heartbeat import SharedHeartbeat


def test_the_shared_memory_shows_the_sessions_that_the_model_works_on() -> None:
    """The memory has room for the ids of the largest batch."""
    shared = SharedHeartbeat.create()
    assert shared.worked_on() == ()
    longest = [SessionId(f"{'p' * 31}_{number:026d}") for number in range(MAX_BATCH_SIZE)]
    shared.work_on(longest)
    assert shared.worked_on() == tuple(longest)
    shared.work_on(())
    assert shared.worked_on() == ()
    shared.close()
