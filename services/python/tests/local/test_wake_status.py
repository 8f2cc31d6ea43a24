"""What ``up`` says of a pool whose groups are not there yet."""

from __future__ import annotations

from dataclasses import replace

from daybreak_server.domain.causes import Cause
from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.pools import GroupRecord, GroupState, PoolView
from daybreak_server.local.wake_status import Wake

LOADING = GroupRecord(id=GroupId("g-1"), state=GroupState.LOADING, phase="model")


def test_ray_is_what_is_waited_for_until_a_group_is_seen() -> None:
    """From the start until its first group tells of itself, a pool is at `ray`; then the whole way is told once."""
    wake = Wake(began_ms=1_000)
    report = wake.look(PoolView(name="video", live=1), 3_000, wanted=2)
    assert (report.phase, report.wanted, report.wake_phase) == ("Waking", 2, "ray")
    assert (report.wake_since_ms, report.wake_began_ms, report.wake_last) == (1_000, 1_000, {})
    wake.look(PoolView(name="video", groups=(LOADING,)), 9_000, wanted=2)
    ready = replace(LOADING, state=GroupState.BUSY, wake={"ray": 3.0, "model": 1.5, "warm_up": 0.5})
    report = wake.look(PoolView(name="video", groups=(ready,)), 11_500, wanted=2)
    assert (report.phase, report.wake_phase) == ("Ready", "ready")
    assert report.wake_last == {"ray": 8.0, "model": 1.5, "warm_up": 0.5, "total": 10.5}


def test_a_lost_group_is_none() -> None:
    """A group that is only remembered does not end the wait, and why it ended is told."""
    lost = replace(LOADING, state=GroupState.LOST)
    view = PoolView(
        name="video", groups=(lost,), failure=Cause(reason="ModelMissing", message="no such folder")
    )
    report = Wake(began_ms=0).look(view, 5_000, wanted=1)
    assert (report.wake_phase, report.reason, report.message) == (
        "ray",
        "ModelMissing",
        "no such folder",
    )
