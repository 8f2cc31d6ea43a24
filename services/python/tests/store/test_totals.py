"""A pool's totals on a real server: what they count, that they add up, and that their labels are bounded."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daybreak_server.adapters.redis.lua import group as groups
from daybreak_server.domain.pool_totals import OTHER, PoolTotals
from daybreak_server.domain.pools import PoolReport, WakePhase
from daybreak_server.domain.tasks import CheckpointRef, Claim, EventDraft, Priority, Released, State, Stopped
from testkit.store_cases import DONE, FATAL, OOPS, start, submit
from testkit.store_driver import Driver
from testkit.valkey import Server


def assert_adds_up(totals: PoolTotals) -> None:
    """Each task was submitted once, no state was left more often than it was entered, and the totals agree."""
    moved = totals.transitions
    entered = {state: sum(n for (_, to), n in moved.items() if to == state) for state in State}
    left = {state: sum(n for (before, _), n in moved.items() if before == state) for state in State}
    assert sum(n for (before, _), n in moved.items() if before == "new") == totals.submitted
    assert all(entered[state] >= left[state] for state in State)
    assert totals.claims == entered[State.RUNNING]
    assert sum(entered[state] for state in State if state.terminal) == sum(totals.ended.values())
    assert totals.runs.count == totals.ended[State.SUCCEEDED]
    assert sum(depth.tasks for depth in totals.queue.values()) == entered[State.QUEUED] - left[State.QUEUED]


def start_on_two_ranks(driver: Driver) -> Claim:
    """Submit a task and start it in a group of two ranks."""
    submit(driver)
    claim = driver.claim(ranks=2)
    assert claim is not None
    return claim


def test_a_wait_is_counted_by_its_priority_from_entering_the_queue_to_the_claim(driver: Driver) -> None:
    """A released task waits again from its release on. The time of its run does not count as waiting."""
    submit(driver, priority=Priority.HIGH)
    submit(driver, priority=Priority.LOW)
    driver.pass_time(2_000)
    claim = driver.claim()
    assert claim is not None
    driver.pass_time(10_000)
    driver.settle(claim.lease, Released())
    driver.pass_time(500)
    assert driver.claim() is not None
    totals = driver.totals()
    high, low = totals.waits(Priority.HIGH), totals.waits(Priority.LOW)
    assert (high.count, high.sum, low.count) == (2, 2.5, 0)
    assert dict(zip(high.bounds, high.counts, strict=False))[1.0] == 1  # the wait of 0.5 s
    assert dict(zip(high.bounds, high.counts, strict=False))[5.0] == 1  # the wait of 2 s
    assert_adds_up(totals)


def test_a_delayed_task_waits_from_its_start_time(driver: Driver) -> None:
    """A delay that the client requested does not count as waiting."""
    submit(driver, start_at_ms=driver.now + 5_000)
    driver.pass_time(6_000)
    assert driver.claim() is not None
    totals = driver.totals()
    assert totals.waits(Priority.NORMAL).sum == pytest.approx(1.0)
    assert totals.transitions["new", State.DELAYED] == 1
    assert totals.transitions[State.DELAYED, State.QUEUED] == 1
    assert_adds_up(totals)


def test_a_claim_of_a_waiting_group_is_a_match_and_a_claim_from_a_backlog_is_none(driver: Driver) -> None:
    """When load rises, fewer tasks find an idle group, so the rate of matches falls. Waits grow only later."""
    driver.register("g")
    driver.pass_time(1_000)
    submit(driver)
    submit(driver)
    first = driver.claim("g")
    assert first is not None
    settled = driver.settle(first.lease, DONE, claim_next=driver.group_record("g"))
    assert settled.next is not None
    totals = driver.totals()
    assert (totals.total("matched"), totals.claims) == (1, 2)


def test_a_group_that_dies_is_counted_once_and_one_that_leaves_is_not(driver: Driver) -> None:
    """The leader and its watchdog may both report the death of a group. If neither does, the tick counts the group."""
    for name in ("leaves", "dies", "goes silent"):
        driver.register(name)
    driver.deregister("leaves")
    driver.deregister("dies", died=True)
    driver.deregister("dies", died=True)
    assert driver.totals().total("groups_lost") == 1
    driver.pass_time(60_000)
    assert driver.totals().total("groups_lost") == 2
    driver.deregister("goes silent", died=True)  # for example, its frozen leader is killed
    assert driver.totals().total("groups_lost") == 2


def test_ends_strikes_and_releases_are_counted_by_reason(driver: Driver) -> None:
    """An unknown reason counts as `error` or `other`, so that labels stay bounded."""
    for outcome in (OOPS, FATAL, Released(), Released(reason="a reason of my own"), Stopped(), DONE):
        claim = start(driver)
        driver.settle(claim.lease, outcome)
        if outcome not in (OOPS, FATAL, DONE):
            driver.cancel(claim.lease.task)
    lost = start(driver)
    driver.pass_time(20_000)
    totals = driver.totals()
    assert lost is not None
    assert totals.total("leases_lost") == 1
    assert totals.strikes == {"error": 2, "stalled": 0, "lease_lost": 1, "released": 0}
    assert totals.releases == {
        **dict.fromkeys(("claim_lost", "restarted", "left"), 0),
        "drain": 1,
        "stopped": 1,
        "other": 1,
    }
    assert totals.retries == {"error": 1, "stalled": 0, "lease_lost": 1, "released": 3}
    assert totals.ended == {
        State.SUCCEEDED: 1,
        State.FAILED: 1,
        State.CANCELLED: 3,
        State.EXPIRED: 0,
    }
    assert totals.dead_letters == 1
    assert_adds_up(totals)


def test_the_time_and_steps_until_a_cancelled_task_has_stopped_are_counted(driver: Driver) -> None:
    """A cancel of a waiting task stops nothing, so it does not count."""
    claim = start(driver)
    driver.report(claim.lease, EventDraft(type="progress", data={}), step=3)
    driver.cancel(claim.lease.task)
    driver.pass_time(700)
    driver.report(claim.lease, EventDraft(type="progress", data={}), step=4)
    driver.settle(claim.lease, Stopped())
    driver.cancel(submit(driver))
    totals = driver.totals()
    assert (totals.cancels.count, totals.cancels.sum) == (1, 0.7)
    steps = totals.cancel_steps
    assert (steps.count, steps.sum) == (1, 1)
    assert dict(zip(steps.bounds, steps.counts, strict=False))[1.0] == 1  # a bucket includes its bound


def test_each_gpu_second_is_used_or_wasted_by_one_cause(driver: Driver) -> None:
    """Each attempt takes 6 GPU-seconds. The success counts as used; the retry, the cancel and the failure as wasted."""
    for outcome in (DONE, OOPS, FATAL):
        claim = start_on_two_ranks(driver)
        driver.pass_time(3_000)
        driver.settle(claim.lease, outcome)
        if outcome is OOPS:
            driver.cancel(claim.lease.task)
    cancelled = start_on_two_ranks(driver)
    driver.cancel(cancelled.lease.task)
    driver.pass_time(3_000)
    driver.settle(cancelled.lease, Stopped())
    totals = driver.totals()
    assert totals.used_gpu_seconds == 6.0
    assert totals.wasted_gpu_seconds == {
        "retry": 6.0,
        "cancel": 6.0,
        "failure": 6.0,
        "expiry": 0.0,
        "cold_start": 0.0,
    }
    billed = totals.tenants["t"]
    assert (billed.used_gpu_seconds, billed.wasted_gpu_seconds) == (18.0, 6.0)


@pytest.mark.parametrize("ending", ["success", "failure", "cancel", "cancel while waiting", "expiry"])
def test_time_before_a_checkpoint_counts_when_the_task_ends(driver: Driver, ending: str) -> None:
    """The time before a checkpoint counts as used if the task succeeds, and otherwise as wasted."""
    claim = start(driver, run_within_ms=20_000 if ending == "expiry" else None)
    driver.pass_time(10_000)
    driver.report(claim.lease, checkpoint=CheckpointRef(key="k", step=1))
    driver.pass_time(1_000)
    driver.settle(claim.lease, OOPS)
    totals = driver.totals()
    assert (totals.used_gpu_seconds, totals.wasted_gpu_seconds["retry"]) == (0.0, 1.0)
    task, ran_s = claim.lease.task, 2.0
    if ending == "cancel while waiting":
        driver.cancel(task)
        ran_s = 0.0
    else:
        driver.pass_time(3_000)
        second = driver.claim()
        assert second is not None
        driver.pass_time(2_000)
        if ending == "cancel":
            driver.cancel(task)
        if ending == "expiry":
            driver.pass_time(5_000)
            ran_s = 7.0
        outcome = {"success": DONE, "failure": FATAL}.get(ending, Stopped())
        driver.settle(second.lease, outcome)
    totals = driver.totals()
    wasted = totals.wasted_gpu_seconds
    cause = {"cancel while waiting": "cancel", "success": None}.get(ending, ending)
    assert totals.used_gpu_seconds == (10.0 + ran_s if cause is None else 0.0)
    assert {name: seconds for name, seconds in wasted.items() if seconds and name != "retry"} == (
        {} if cause is None else {cause: 10.0 + ran_s}
    )
    assert totals.tenants["t"].used_gpu_seconds == driver.get(task).gpu_seconds == 10.0 + ran_s


def test_waste_is_not_negative_if_the_clock_is_set_back_after_a_checkpoint(driver: Driver) -> None:
    """If a counter falls, Prometheus assumes a restart at 0, and counts the new value as an increase."""
    claim = start_on_two_ranks(driver)
    driver.pass_time(3_000)
    driver.now += 950
    driver.report(claim.lease, checkpoint=CheckpointRef(key="k", step=1))
    driver.now -= 900
    driver.settle(claim.lease, OOPS)
    assert driver.totals().wasted_gpu_seconds["retry"] == 0.0
    assert driver.get(claim.lease.task).gpu_seconds == 6.1


def test_idle_and_starting_groups_cost_gpu_time_too(driver: Driver) -> None:
    """The time of a busy group is billed with the attempt that it runs, and counts neither as idle nor as starting."""
    driver.tick()
    driver.register("idle", ranks=2, ttl_s=600)
    driver.register("cold", ranks=1, fresh=True, ttl_s=600)
    driver.register("busy", ranks=4, ttl_s=600)
    submit(driver)
    assert driver.claim("busy", ranks=4) is not None
    driver.pass_time(10_000)
    totals = driver.totals()
    assert totals.idle_gpu_seconds == pytest.approx(20.0, abs=2.0)
    assert totals.wasted_gpu_seconds["cold_start"] == pytest.approx(10.0, abs=1.0)


def test_a_wake_is_counted_once_however_often_it_is_reported(driver: Driver) -> None:
    """The operator repeats the last wake in every report."""
    for seconds in (30.0, 30.0, 45.0):
        report = PoolReport(
            phase="Ready", wake_phase=WakePhase.READY, wake_last={"pods": seconds, "total": seconds}
        )
        driver.run(groups.encode_report(driver.keys, report, ttl_s=60))
    assert driver.totals().total("wakes") == 2


def test_fairness_error_is_the_distance_between_waiting_tenants(driver: Driver) -> None:
    """The claim charges one tenant the estimate of 8 s, which puts its virtual time 8 s ahead of the other tenant's."""
    for tenant in ("alice", "alice", "bob"):
        submit(driver, tenant=tenant, estimate_s=8.0)
    assert driver.totals().fairness_error_s == 0.0
    assert driver.claim() is not None
    assert driver.totals().fairness_error_s == 8.0


def test_a_deleted_tenant_takes_its_series_away_and_leaves_the_pool_its_total(driver: Driver) -> None:
    """The total of the pool never decreases."""
    claim = start(driver)
    driver.pass_time(2_000)
    driver.settle(claim.lease, DONE)
    for seconds in (3, 0):  # the second claim brings the pool's virtual time past that of the first tenant
        keep = start(driver, tenant="bob")
        driver.pass_time(seconds * 1_000)
        driver.settle(keep.lease, DONE)
    assert driver.delete(claim.lease.task) == 1
    totals = driver.totals()
    assert set(totals.tenants) == {"bob"}
    assert totals.used_gpu_seconds == 5.0


def test_a_tenant_has_totals_of_0_before_its_first_bill(driver: Driver) -> None:
    """Prometheus sees no increase in the first value of a series. Without the 0, it would miss the first bill."""
    submit(driver, tenant="alice")
    driver.cancel(submit(driver, tenant="bob"))
    totals = driver.totals()
    assert {name: tenant.queued for name, tenant in totals.tenants.items()} == {"alice": 1, "bob": 0}
    assert {tenant.used_gpu_seconds + tenant.wasted_gpu_seconds for tenant in totals.tenants.values()} == {
        0.0
    }


def test_only_tenants_that_have_tasks_take_one_of_the_limited_places(driver: Driver) -> None:
    """The limit does not count deleted tenants or `other`."""
    driver.tick(tenants_max=2)

    def run_one(tenant: str) -> Claim:
        claim = start(driver, tenant=tenant)
        driver.now += 1_000
        driver.tick(tenants_max=2)
        driver.settle(claim.lease, DONE)
        return claim

    claims = {tenant: run_one(tenant) for tenant in ("alice", "bob", "carol")}
    assert set(driver.totals().tenants) == {"alice", "bob", OTHER}
    for tenant in ("alice", "bob"):
        assert driver.delete(claims[tenant].lease.task) == 1
    assert set(driver.totals().tenants) == {OTHER}
    for tenant in ("dave", "carol"):
        run_one(tenant)
    totals = driver.totals()
    assert {name: tenant.used_gpu_seconds for name, tenant in totals.tenants.items()} == {
        "dave": 1.0,
        "carol": 1.0,
        OTHER: 1.0,
    }
    assert totals.used_gpu_seconds == 5.0


def test_waiting_tenants_are_named_up_to_the_limit(driver: Driver) -> None:
    """Waiting tenants may have no totals, for example because the limit was lower when they submitted their tasks.

    Up to the limit, such tenants appear under their own names, with their weights. The rest count as `other`.
    """
    driver.tick(tenants_max=2)
    for tenant in ("alice", "bob", "carol"):
        submit(driver, tenant=tenant, weight=2.0)
    driver.client.delete(driver.keys.single("tenant_totals"))
    tenants = driver.totals().tenants
    assert {name: (tenant.queued, tenant.weight) for name, tenant in tenants.items()} == {
        "alice": (1, 2.0),
        "bob": (1, 2.0),
        OTHER: (1, None),
    }


@settings(max_examples=15, deadline=None)
@given(
    most=st.integers(1, 4),
    bills=st.lists(st.tuples(st.integers(0, 30), st.sampled_from([DONE, OOPS])), min_size=1, max_size=40),
)
def test_however_many_tenants_there_are_their_series_are_bounded(
    server_session: Server, most: int, bills: list[tuple[int, Any]]
) -> None:
    """At most ``tenants_max`` tenants and `other` have series. These series add up to all GPU time of the pool."""
    with server_session.client() as client:
        client.flushall()
    driver = Driver(server_session.url)
    try:
        driver.tick(tenants_max=most)
        names = set()
        for number, outcome in bills:
            claim = start(driver, tenant=f"tenant:{number}")
            driver.now += 1_000
            driver.tick(tenants_max=most)
            driver.settle(claim.lease, outcome)
            driver.cancel(claim.lease.task)
            names.add(f"tenant:{number}")
        totals = driver.totals()
        labels = set(totals.tenants) - {OTHER}
        assert len(labels) == min(most, len(names))
        assert labels <= names
        billed = sum(t.used_gpu_seconds + t.wasted_gpu_seconds for t in totals.tenants.values())
        assert billed == pytest.approx(len(bills))
        assert (OTHER in totals.tenants) == (len(names) > most)
    finally:
        driver.close()
