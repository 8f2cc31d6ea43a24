"""If a session kills each group that works on it, the session fails after a few groups."""

from __future__ import annotations

import pytest

from daybreak_server.adapters.redis.limits import SESSION_LOSSES_MAX
from daybreak_server.domain.session_totals import SessionTotals
from daybreak_server.domain.sessions import SessionCommit, SessionEnd, SessionId, SessionState, Turn
from tests.store.sessions.conftest import Sessions, pcm, take


async def lose(sessions: Sessions, times: int, *, turn: bool = False) -> None:
    """Let groups claim the waiting sessions and die. With ``turn``, each group completes a turn first."""
    for _ in range(times):
        group = sessions.group(lease_s=2)
        claims = take(group)
        if turn:
            for claim in claims:
                start = claim.record.consumed
                complete = Turn(start=start, end=start + 1)
                group.commit([SessionCommit(lease=claim.lease, number=1, turn=complete, keep_from=start)])
        sessions.driver.pass_time(3000)


async def state(sessions: Sessions, session: SessionId) -> SessionState:
    return (await sessions.get(session)).state


@pytest.mark.parametrize("ends", [False, True], ids=["audio", "last-turn"])
async def test_groups_that_die_in_a_row_fail_the_session(sessions: Sessions, ends: bool) -> None:
    session = await sessions.open()
    await sessions.store.append_audio(session, b"" if ends else pcm(1, 2), at=0, end=ends)
    await lose(sessions, SESSION_LOSSES_MAX)
    assert await state(sessions, session) is SessionState.WAITING
    await lose(sessions, 1)
    record = await sessions.get(session)
    assert record.end is SessionEnd.FAILED
    assert record.error is not None
    assert (record.error.reason, record.error.message[:1]) == ("groups_lost", "6")
    moved = SessionTotals.of(sessions.driver.totals()).moved
    assert moved["lease_lost"] == SESSION_LOSSES_MAX, "the last loss ended the session, so it did not move"


async def test_a_complete_turn_shows_that_the_session_is_not_the_cause(sessions: Sessions) -> None:
    session = await sessions.open()
    await sessions.store.append_audio(session, pcm(*range(9)), at=0)
    for _ in range(2):
        await lose(sessions, SESSION_LOSSES_MAX - 1)
        await lose(sessions, 1, turn=True)
    assert await state(sessions, session) is SessionState.WAITING


@pytest.mark.parametrize("known", [True, False])
async def test_only_sessions_that_a_dead_group_worked_on_may_be_the_cause(
    sessions: Sessions, known: bool
) -> None:
    """If nobody knows which sessions the dead group worked on, each of its sessions with audio may be the cause."""
    deadly, waits = await sessions.open(), await sessions.open()
    for session in (deadly, waits):
        await sessions.store.append_audio(session, pcm(1, 2), at=0)
    for number in range(SESSION_LOSSES_MAX + 1):
        name = f"g{number}"
        sessions.driver.register(name)
        take(sessions.group(), name, room=2)
        sessions.driver.deregister(name, died=True, worked_on=[deadly] if known else None)
    ended = SessionState.ENDED
    assert (await state(sessions, deadly), await state(sessions, waits)) == (
        ended,
        SessionState.WAITING if known else ended,
    )


async def test_a_session_without_work_is_not_the_cause(sessions: Sessions) -> None:
    session = await sessions.open()
    await lose(sessions, SESSION_LOSSES_MAX + 2)
    assert await state(sessions, session) is SessionState.WAITING


async def test_groups_that_leave_in_order_do_not_count(sessions: Sessions) -> None:
    session = await sessions.open()
    await sessions.store.append_audio(session, pcm(1, 2), at=0)
    for _ in range(SESSION_LOSSES_MAX + 2):
        group = sessions.group()
        group.release_sessions([claim.lease for claim in take(group)])
    assert await state(sessions, session) is SessionState.WAITING
