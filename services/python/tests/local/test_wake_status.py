"""Tests of what ``up`` reports for a pool without a ready group."""

from __future__ import annotations

from dataclasses import replace

from daybreak_server.domain.causes import Cause
from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.pools import GroupRecord, GroupState, PoolView
from daybreak_server.local.wake_status import WakeTracker

LOADING = GroupRecord(id=GroupId("g-1"), state=GroupState.LOADING, phase="model")


def test_a_pool_waits_for_ray_until_its_first_group_registers() -> None:
    """Until a group registers, the phase is ``ray``. Once a group is ready, the report has all phases' durations."""
    wake = WakeTracker(began_ms=1_000)
    report = wake.update(PoolView(name="video", live=1), 3_000, wanted=2)
    assert (report.phase, report.wanted, report.wake_phase) == ("Waking", 2, "ray")
    assert (report.wake_since_ms, report.wake_began_ms, report.wake_last) == (1_000, 1_000, {})
    wake.update(PoolView(name="video", groups=(LOADING,)), 9_000, wanted=2)
    ready = replace(LOADING, state=GroupState.BUSY, wake={"ray": 3.0, "model": 1.5, "warm_up": 0.5})
    report = wake.update(PoolView(name="video", groups=(ready,)), 11_500, wanted=2)
    assert (report.phase, report.wake_phase) == ("Ready", "ready")
    assert report.wake_last == {"ray": 8.0, "model": 1.5, "warm_up": 0.5, "total": 10.5}


def test_a_lost_group_does_not_end_the_wait() -> None:
    """The report has the reason why the group ended."""
    lost = replace(LOADING, state=GroupState.LOST)
    view = PoolView(
        name="video", groups=(lost,), failure=Cause(reason="ModelMissing", message="no such folder")
    )
    report = WakeTracker(began_ms=0).update(view, 5_000, wanted=1)
    assert (report.wake_phase, report.reason, report.message) == (
        "ray",
        "ModelMissing",
        "no such folder",
    )
