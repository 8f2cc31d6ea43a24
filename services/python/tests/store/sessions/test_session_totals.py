"""What gateways export about sessions: totals, which do not restart at 0 when a group or a gateway dies."""

from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry

from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.session_totals import SessionTotals
from daybreak_server.domain.sessions import SessionEnd, SessionsMeasured
from daybreak_server.observability.pool_metrics import PoolMetrics
from daybreak_server.ports.sessions import SessionsFullError
from tests.store.sessions.conftest import Sessions, take


def totals(sessions: Sessions) -> SessionTotals:
    return SessionTotals.of(sessions.driver.totals())


async def test_opened_refused_and_ended_sessions_are_counted(sessions: Sessions) -> None:
    sessions.limit(max_sessions=2)
    first, second = await sessions.open(), await sessions.open()
    with pytest.raises(SessionsFullError):
        await sessions.open()
    sessions.driver.pass_time(5000)
    await sessions.store.close_session(first)
    await sessions.store.close_session(second, reason=SessionEnd.IDLE)
    counted = totals(sessions)
    assert (counted.opened, counted.refused) == (2, {"limit": 1, "lag": 0})
    assert counted.ended == {"finished": 0, "closed": 1, "idle": 1, "failed": 0}
    assert counted.seconds == 10.0


async def test_waits_of_new_and_of_moved_sessions_are_counted_separately(sessions: Sessions) -> None:
    await sessions.open()
    sessions.driver.pass_time(500)
    group = sessions.group()
    (claim,) = take(group)
    sessions.driver.pass_time(1000)
    group.release_sessions([claim.lease])
    sessions.driver.pass_time(2000)
    take(sessions.group(), "g2")
    counted = totals(sessions)
    assert counted.moved == {"released": 1, "lease_lost": 0, "left": 0, "restarted": 0}
    assert {which: (waits.count, waits.sum) for which, waits in counted.waits.items()} == {
        "new": (1, 0.5),
        "moved": (1, 2.0),
    }


async def test_the_room_of_a_pool_is_that_of_the_groups_that_take_sessions(sessions: Sessions) -> None:
    await sessions.open()
    await sessions.open()
    first, second = sessions.group(), sessions.group()
    (claim,) = take(first, room=1)
    first.renew_sessions(GroupId("g1"), [claim.lease], measured=SessionsMeasured(room=5, prefill=3, decode=2))
    second.renew_sessions(GroupId("g2"), [], measured=SessionsMeasured(room=7, full=True))
    overview = await sessions.store.sessions_overview("speech")
    assert {(each.measured.prefill, each.measured.decode) for each in overview.groups} == {(3, 2), (0, 0)}
    metrics, registry = PoolMetrics(), CollectorRegistry()
    registry.register(metrics)
    metrics.update_totals(sessions.driver.totals())
    assert registry.get_sample_value("daybreak_sessions_opened_total", {"pool": "speech"}) is None
    metrics.update_sessions("speech", overview)
    assert registry.get_sample_value("daybreak_sessions_room", {"pool": "speech"}) == 5
    assert registry.get_sample_value("daybreak_sessions_opened_total", {"pool": "speech"}) == 2
    shown = {
        state: registry.get_sample_value("daybreak_sessions", {"pool": "speech", "state": state})
        for state in ("active", "waiting")
    }
    assert shown == {"active": 1, "waiting": 1}
