"""What changes with time: leases, retention, groups, delays."""

from __future__ import annotations

from daybreak_server.domain.pools import GroupState
from daybreak_server.domain.tasks import (
    CheckpointRef,
    Control,
)
from testkit.store_cases import FATAL, start, submit
from testkit.store_driver import Driver


def test_an_outage_ends_no_lease(driver: Driver) -> None:
    """An hour without ticks is two seconds on the lease clock."""
    claim = start(driver)
    driver.tick()
    driver.now += 3_600_000
    assert driver.tick().reaped == 0
    driver.pass_time(12_000)
    assert driver.renew(claim.lease) is Control.CONTINUE


def test_a_holder_can_renew_its_lease_after_an_outage(driver: Driver) -> None:
    """A lease that had a second left is not taken by the first ticks after it, however many gateways tick then."""
    claim = start(driver)
    driver.register("g", ttl_s=15)
    driver.pass_time(14_000)
    driver.now += 3_600_000
    assert [driver.tick().reaped for _ in range(3)] == [0, 0, 0]
    assert [group.state for group in driver.view().groups] == [GroupState.BUSY]
    assert driver.renew(claim.lease) is Control.CONTINUE
    assert driver.pass_time(14_000).reaped == 0


def test_a_silent_holder_loses_its_lease_after_an_outage(driver: Driver) -> None:
    """Two seconds later; and ticks that always come late end a lease as well."""
    start(driver)
    driver.pass_time(14_000)
    driver.now += 3_600_000
    reaped = [driver.tick().reaped]
    for _ in range(2):
        driver.now += 1000
        reaped.append(driver.tick().reaped)
    assert reaped == [0, 0, 1]
    start(driver)
    late = []
    for _ in range(9):
        driver.now += 3000
        late.append(driver.tick().reaped)
    assert sum(late) == 1


def test_retention_takes_everything(driver: Driver) -> None:
    """After retention a task is named once a minute until it is forgotten; then nothing of it is left."""
    claim = start(driver, retention_s=60, idempotency_key="k")
    task = claim.lease.task
    driver.report(claim.lease, checkpoint=CheckpointRef(key="c", step=1))
    driver.settle(claim.lease, FATAL)
    assert driver.forget(submit(driver)) == -1
    assert set(driver.tick().garbage) == {f"{task}/{claim.lease.token}/", f"{task}/checkpoints/"}
    assert driver.tick().garbage == ()
    driver.now += 60_000
    assert driver.tick().retention_due == (task,)
    assert driver.tick().retention_due == ()
    driver.now += 60_000
    assert driver.tick().retention_due == (task,)
    assert (driver.forget(task), driver.forget(task)) == (1, 0)
    assert not [key for key in driver.client.scan_iter() if task.encode() in key]


def test_tick_is_bounded(driver: Driver) -> None:
    """A tick handles at most its limit and says that there is more."""
    for _ in range(25):
        submit(driver, start_at_ms=driver.now + 10)
    driver.now += 10
    reports = [driver.tick(limit=10) for _ in range(3)]
    assert [report.promoted for report in reports] == [10, 10, 5]
    assert [report.more for report in reports] == [True, True, False]


def test_lost_group_vanishes(driver: Driver) -> None:
    """A group that stops refreshing is lost, shown as such for a while, and then gone."""
    driver.register("g", ttl_s=5)
    driver.pass_time(6000)
    assert [group.state for group in driver.view().groups] == ["lost"]
    driver.pass_time(301_000)
    assert driver.view().groups == ()


def test_a_group_on_a_cordoned_host_claims_nothing(driver: Driver) -> None:
    """A group that registers on a cordoned host, now or later, claims nothing. Uncordoned, it may again;
    and a host that nobody has opened is forgotten once it must be gone."""
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
    driver.now += 3_600_000  # a clock that is set opens nothing
    driver.tick()
    assert driver.register("again", hosts=("b",)) is True
    driver.pass_time(601_000)
    assert (driver.zset("cordoned"), driver.view().cordoned) == ({}, ())
    assert driver.register("again2", hosts=("b",)) is False


def test_delayed_is_live_when_a_wake_takes_as_long(driver: Driver) -> None:
    """A delayed task is live as early as the pool's last wake took, so that it finds a group ready."""
    driver.client.hset(driver.keys.single("meta"), "wake_ms", 3000)
    task = submit(driver, start_at_ms=driver.now + 5000)
    assert driver.tick().promoted == 0
    assert task not in driver.zset("live")
    driver.now += 2000
    driver.tick()
    assert task in driver.zset("live")
    assert (driver.view().queued, driver.view().delayed) == (0, 1)
