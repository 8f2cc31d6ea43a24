"""Which waiting sessions a group claims: all of them, only orphans (if the group lags), or none."""

from __future__ import annotations

from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.sessions import Intake
from tests.store.sessions.conftest import Sessions, take


async def test_a_group_that_no_longer_wants_sessions_leaves_them_to_others(sessions: Sessions) -> None:
    """The group that leaves takes a wake-up, and passes it on to another group."""
    session, leaving, other = await sessions.open(), sessions.group(), sessions.group()
    assert leaving.claim_sessions(GroupId("g1"), room=4, wait_s=5, intake=lambda: Intake.NONE) == []
    (claim,) = other.claim_sessions(GroupId("g2"), room=4, wait_s=5)
    assert claim.lease.session == session


async def test_orphans_come_before_new_sessions_and_go_to_groups_that_lag_too(sessions: Sessions) -> None:
    new = await sessions.open()
    sessions.driver.now += 1
    orphans = [await sessions.open()]
    sessions.driver.now += 1
    orphans.append(await sessions.open())
    first, lagging, other = sessions.group(), sessions.group(), sessions.group()
    claims = take(first, "g1")
    assert [claim.lease.session for claim in claims] == [new, *orphans]
    first.release_sessions([claim.lease for claim in claims[1:]])
    await sessions.store.close_session(new)
    new = await sessions.open()
    assert [claim.lease.session for claim in take(lagging, "g2", room=1, intake=Intake.ORPHANS)] == orphans[
        :1
    ]
    assert [claim.lease.session for claim in take(other, "g3")] == [orphans[1], new]


async def test_a_group_that_lags_leaves_new_sessions_and_their_wake_ups_to_others(sessions: Sessions) -> None:
    session, lagging, other = await sessions.open(), sessions.group(), sessions.group()
    assert lagging.claim_sessions(GroupId("g1"), room=4, wait_s=0.3, intake=lambda: Intake.ORPHANS) == []
    assert sessions.driver.client.llen(sessions.driver.keys.single("session_wakeup")) == 1
    (claim,) = other.claim_sessions(GroupId("g2"), room=4, wait_s=5)
    assert claim.lease.session == session
