"""Tests of what ``up`` reports for a pool without a ready group."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.domain.causes import Cause, Reason
from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.pools import GroupRecord, GroupState, PoolView
from daybreak_server.local import wake_status
from daybreak_server.local.wake_status import WakeReporter, WakeTracker
from daybreak_server.settings.tree import Settings
from testkit.pools import Pool
from testkit.valkey import start_valkey
from testkit.waiting import wait_until

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


def test_a_pool_whose_model_is_missing_refuses_work_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The report ends. If the pool still had a report, requests and sessions would wait for the pool."""
    monkeypatch.setattr(wake_status, "POLL_S", 0.05)
    monkeypatch.setattr(wake_status, "REPORT_TTL_S", 1.0)
    server = start_valkey(tmp_path / "valkey")
    settings = Settings.model_validate(
        {"redis": {"url": server.url}, "pools": {"echo": {"groups": 1}}, "data_dir": tmp_path}
    )
    missing = Cause(reason=Reason.MODEL_MISSING, message="no such folder")
    queue, reporter = RedisQueue(server.url, pool="echo"), WakeReporter(settings)
    try:
        with closing(Pool(settings)) as pool:
            reporter.start()
            wait_until(lambda: pool.view().report, 60, "a report")
            queue.report_failure(missing)
            wait_until(lambda: pool.view().start_failure == missing, 60, "the pool to refuse work")
    finally:
        reporter.stop()
        queue.close()
        server.stop()
