"""If a task waited for a wake, its `started` event has the seconds of each phase of the wake."""

from __future__ import annotations

from typing import Any

from daybreak_server.adapters.redis.lua import group
from daybreak_server.domain.pools import PoolReport
from testkit.store_cases import DONE, submit
from testkit.store_driver import Driver

WAKE = {"ray": 3.1, "model": 1.25, "warm_up": 0.5}


def _started(driver: Driver, task: str) -> list[dict[str, Any]]:
    return [dict(event.data) for event in driver.events(task) if event.type == "started"]


def test_a_task_that_waited_for_the_wake_has_its_stamps(driver: Driver) -> None:
    first, second = submit(driver), submit(driver)
    driver.now += 5000
    driver.register("g", wake=WAKE)
    driver.now += 40
    claim = driver.claim("g")
    assert claim is not None
    stamps = {"ray_s": 3.1, "model_s": 1.25, "warm_up_s": 0.5}
    assert _started(driver, first) == [{"group": "g", "ranks": 1, "wake": {**stamps, "since_ready_s": 0.04}}]
    driver.now += 2000
    driver.settle(claim.lease, DONE, claim_next=driver.group_record("g", kept=[claim.lease.task]))
    [started] = _started(driver, second)
    assert started["wake"]["since_ready_s"] == 2.04


def test_a_task_that_came_later_has_none(driver: Driver) -> None:
    driver.register("g", wake=WAKE)
    driver.now += 1
    task = submit(driver)
    driver.claim("g")
    assert _started(driver, task) == [{"group": "g", "ranks": 1}]


def test_a_group_that_is_lost_and_comes_back_has_not_woken_again(driver: Driver) -> None:
    driver.tick()
    driver.register("g", ttl_s=1, wake=WAKE)
    for _ in range(4):
        driver.now += 1000
        driver.tick()
    task = submit(driver)
    driver.now += 1
    driver.register("g", wake=WAKE)
    driver.claim("g")
    assert _started(driver, task) == [{"group": "g", "ranks": 1}]


def test_the_phases_before_the_group_come_from_the_operator(driver: Driver) -> None:
    """For a phase before the group exists, the operator's value replaces the group's. For a later phase, the group's
    value counts."""
    task = submit(driver)
    passed = {"detect": 1.8, "pods": 0.6, "ray": 4.1, "model": 99.0}
    report = PoolReport(phase="Waking", wake_phase="model", wake_passed=passed)
    driver.run(group.encode_report(driver.keys, report, ttl_s=60))
    driver.now += 9000
    driver.register("g", wake=WAKE)
    driver.claim("g")
    assert _started(driver, task)[0]["wake"] == {
        "detect_s": 1.8, "pods_s": 0.6, "ray_s": 4.1, "model_s": 1.25, "warm_up_s": 0.5, "since_ready_s": 0.0,
    }  # fmt: skip


def test_a_wake_that_is_over_gives_no_stamps_to_a_later_group(driver: Driver) -> None:
    submit(driver)
    waking = PoolReport(phase="Waking", wake_phase="model", wake_passed={"pods": 30.0})
    driver.run(group.encode_report(driver.keys, waking, ttl_s=60))
    driver.run(group.encode_report(driver.keys, PoolReport(phase="Ready", wake_phase="ready"), ttl_s=60))
    driver.now += 9000
    driver.register("g2", wake=WAKE)
    task = driver.claim("g2")
    assert task is not None
    assert "pods_s" not in _started(driver, task.lease.task)[0]["wake"]
