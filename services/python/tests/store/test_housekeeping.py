"""What `tick` does as time passes: among other things, it ends leases, promotes tasks and removes lost groups."""

from __future__ import annotations

from daybreak_server.domain.pools import GroupState
from daybreak_server.domain.tasks import (
    CheckpointRef,
    Control,
)
from testkit.store_cases import FATAL, start, submit
from testkit.store_driver import Driver


def test_an_outage_ends_no_lease(driver: Driver) -> None:
    """An hour without ticks advances the lease clock by two seconds only."""
    claim = start(driver)
    driver.tick()
    driver.now += 3_600_000
    assert driver.tick().reaped == 0
    driver.pass_time(12_000)
    assert driver.renew(claim.lease) is Control.CONTINUE


def test_a_holder_can_renew_its_lease_after_an_outage(driver: Driver) -> None:
    """The first ticks after an outage do not end a lease that had a second left, even if many gateways tick."""
    claim = start(driver)
    driver.register("g", ttl_s=15)
    driver.pass_time(14_000)
    driver.now += 3_600_000
    assert [driver.tick().reaped for _ in range(3)] == [0, 0, 0]
    assert [group.state for group in driver.view().groups] == [GroupState.BUSY]
    assert driver.renew(claim.lease) is Control.CONTINUE
    assert driver.pass_time(14_000).reaped == 0


def test_a_silent_holder_loses_its_lease_after_an_outage(driver: Driver) -> None:
    """The lease ends two seconds after the outage. A lease also ends if every tick is late."""
    start(driver)
    driver.pass_time(14_000)
    driver.now += 3_600_000
    reaped = [driver.tick().reaped]
    for _ in range(2):
        driver.now += 1000
        reaped.append(driver.tick().reaped)
    assert reaped == [0, 0, 1]
    start(driver)
    reaped_by_late_ticks = []
    for _ in range(9):
        driver.now += 3000
        reaped_by_late_ticks.append(driver.tick().reaped)
    assert sum(reaped_by_late_ticks) == 1


def test_a_deleted_task_leaves_no_key(driver: Driver) -> None:
    """After a task's retention, `tick` reports the task every minute. Once the task is deleted, no key has its id."""
    claim = start(driver, retention_s=60, idempotency_key="k")
    task = claim.lease.task
    driver.report(claim.lease, checkpoint=CheckpointRef(key="c", step=1))
    driver.settle(claim.lease, FATAL)
    assert driver.delete(submit(driver)) == -1
    assert set(driver.tick().garbage) == {f"{task}/{claim.lease.token}/", f"{task}/checkpoints/"}
    assert driver.tick().garbage == ()
    driver.now += 60_000
    assert driver.tick().retention_due == (task,)
    assert driver.tick().retention_due == ()
    driver.now += 60_000
    assert driver.tick().retention_due == (task,)
    assert (driver.delete(task), driver.delete(task)) == (1, 0)
    assert not [key for key in driver.client.scan_iter() if task.encode() in key]


def test_a_tick_stops_at_its_limit_and_reports_that_more_is_due(driver: Driver) -> None:
    """A tick promotes at most as many tasks as its limit allows, and reports whether more are due."""
    for _ in range(25):
        submit(driver, start_at_ms=driver.now + 10)
    driver.now += 10
    reports = [driver.tick(limit=10) for _ in range(3)]
    assert [report.promoted for report in reports] == [10, 10, 5]
    assert [report.more for report in reports] == [True, True, False]


def test_a_lost_group_is_shown_for_a_while_and_then_removed(driver: Driver) -> None:
    """A group that stops refreshing its registration is shown as lost for a while, and is then gone."""
    driver.register("g", ttl_s=5)
    driver.pass_time(6000)
    assert [group.state for group in driver.view().groups] == ["lost"]
    driver.pass_time(301_000)
    assert driver.view().groups == ()


def test_a_group_on_a_cordoned_host_claims_nothing(driver: Driver) -> None:
    """A group on a cordoned host claims nothing until the host is uncordoned, no matter when the group registered.

    If nobody uncordons a host, the store ends the cordon after ten minutes, because the host is then most likely gone.
    """
    driver.register("before", hosts=("a", "b"))
    driver.cordon_hosts("b", "c")
    submit(driver)
    assert driver.register("before", hosts=("a", "b")) is True
    assert driver.register("late", fresh=True, hosts=("c",)) is True
    assert driver.register("elsewhere", hosts=("d",)) is False
    assert driver.view().cordoned == ("b", "c")
    assert driver.claim("late") is None
    driver.cordon_hosts("c", cordoned=False)
    driver.drain("late", on=False)
    assert driver.register("late", hosts=("c",)) is False
    assert driver.claim("late") is not None
    driver.now += 3_600_000  # a jump of the wall clock must not end a cordon
    driver.tick()
    assert driver.register("again", hosts=("b",)) is True
    driver.pass_time(601_000)
    assert (driver.zset("cordoned"), driver.view().cordoned) == ({}, ())
    assert driver.register("again2", hosts=("b",)) is False


def test_a_delayed_task_is_live_one_wake_before_it_is_due(driver: Driver) -> None:
    """The task is live early by the duration of the pool's last wake, so that a group is ready when the task is due."""
    driver.client.hset(driver.keys.single("meta"), "wake_ms", 3000)
    task = submit(driver, start_at_ms=driver.now + 5000)
    assert driver.tick().promoted == 0
    assert task not in driver.zset("live")
    driver.now += 2000
    driver.tick()
    assert task in driver.zset("live")
    assert (driver.view().queued, driver.view().delayed) == (0, 1)
