"""Gateways report how many requests they have, and the store keeps the number of groups that these requests need."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from daybreak_server.adapters.redis.limits import WANTED_MAX
from daybreak_server.adapters.redis.lua import group
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.policy import GRACE_MS, LEASE_STEP_MS, METER_MS
from daybreak_server.domain.pools import GroupRecord, GroupState, PoolReport, WakePhase
from testkit.store_driver import Driver
from testkit.valkey import Server


@pytest.fixture
def online(server: Server) -> Iterator[Driver]:
    """A pool whose target load is four requests per group."""
    driver = Driver(server.url, pool="chat", target_load=4)
    driver.tick()
    yield driver
    driver.close()


def wanted(driver: Driver) -> int:
    """The number of wanted groups, as KEDA reads it."""
    return int(driver.client.zcard(driver.keys.single("wanted")))


@pytest.mark.parametrize(("requests", "groups"), [(0, 0), (1, 1), (4, 1), (5, 2), (8, 2), (9, 3), (400, 100)])
def test_requests_need_as_many_groups_as_the_target_load_says(
    online: Driver, requests: int, groups: int
) -> None:
    assert online.publish_demand("g1", requests) == groups
    assert wanted(online) == groups
    online.tick()
    assert wanted(online) == groups
    view = online.view()
    assert (view.demand, view.wanted) == (requests, groups)


def test_the_requests_of_all_gateways_are_added_up(online: Driver) -> None:
    online.publish_demand("g1", 3)
    online.publish_demand("g2", 3)
    assert wanted(online) == 2
    online.publish_demand("g1", 1)
    assert (wanted(online), online.view().demand) == (1, 4)
    online.publish_demand("g2", 0)
    assert (wanted(online), online.view().demand) == (1, 1)
    online.publish_demand("g1", 0)
    assert online.client.exists(online.keys.single("demand"), online.keys.single("wanted")) == 0


def test_a_gateway_that_dies_asks_for_nothing_once_its_lease_ends(online: Driver) -> None:
    online.publish_demand("dies", 8, ttl_s=3)
    online.publish_demand("lives", 1, ttl_s=3)
    for _ in range(3):
        online.pass_time(1000)
        online.publish_demand("lives", 1, ttl_s=3)
    assert (wanted(online), online.view().demand) == (1, 1)


def test_a_published_number_extends_the_lease(online: Driver) -> None:
    for _ in range(10):
        online.publish_demand("g1", 5, ttl_s=3)
        online.pass_time(2000)
        assert wanted(online) == 2


def test_an_outage_of_the_store_ends_no_demand(online: Driver) -> None:
    """Gateways cannot publish during an outage.

    After the outage, they have time to publish again, just as holders of leases have time to renew their leases.
    """
    online.publish_demand("g1", 8, ttl_s=LEASE_STEP_MS / 1000)
    online.now += 3_600_000
    online.tick()
    assert wanted(online) == 2
    online.publish_demand("other", 0)  # in the grace period, this call does not end the demand of g1
    assert wanted(online) == 2
    online.pass_time(GRACE_MS)
    assert wanted(online) == 0


def test_a_step_of_the_wall_clock_ends_no_demand(online: Driver) -> None:
    online.publish_demand("g1", 8, ttl_s=5)
    online.now -= 3_600_000
    online.tick()
    assert wanted(online) == 2


def test_demand_asks_for_a_limited_number_of_groups(online: Driver) -> None:
    assert online.publish_demand("g1", 40 * WANTED_MAX) == WANTED_MAX
    assert online.publish_demand("g1", 4) == 1
    assert set(online.zset("wanted")) == {"1"}


def test_a_pool_that_serves_no_requests_keeps_no_demand(online: Driver) -> None:
    """If a pool changes its kind to `jobs`, its earlier requests no longer need groups."""
    online.publish_demand("g1", 8)
    online.target_load = None
    online.tick()
    assert online.client.exists(online.keys.single("demand"), online.keys.single("wanted")) == 0
    assert not online.view().has_work


async def test_the_store_publishes_only_for_pools_that_serve_requests(server: Server) -> None:
    store = RedisStore(server.url, target_loads={"chat": 2.5})
    try:
        await store.publish_demand("chat", "g1", 6, ttl_s=3)
        assert (await store.pool("chat")).wanted == 3
        await store.tick("chat")
        assert (await store.pool("chat")).wanted == 3
        with pytest.raises(ValueError, match="video"):
            await store.publish_demand("video", "g1", 6, ttl_s=3)
    finally:
        await store.close()


# ── the wake ──────────────────────────────────────────────────────────────────────────────────────────────


def test_requests_wake_a_pool_as_tasks_do(online: Driver) -> None:
    began = online.now
    online.publish_demand("g1", 1)
    online.pass_time(2000)
    online.publish_demand("g1", 9)
    online.now += 500
    view = online.view()
    assert (view.wake_phase, view.wake_since_ms, view.wanted_for_s) == (WakePhase.DETECT, began, 2.5)
    assert (view.has_work, view.live, view.oldest_wait_s) == (True, 0, None)
    online.register("g")
    assert online.view().wake_phase == WakePhase.READY
    online.deregister("g")
    online.publish_demand("g1", 0)
    view = online.view()
    assert (view.wake_phase, view.has_work, view.wanted_for_s) == (WakePhase.ZERO, False, None)


# ── the target load of a GeneratorPool ────────────────────────────────────────────────────────────────────


def report(driver: Driver, target_load: float | None) -> None:
    driver.run(group.encode_report(driver.keys, PoolReport(phase="Ready", target_load=target_load), ttl_s=60))


def test_the_target_load_of_the_generator_pool_counts(online: Driver) -> None:
    online.publish_demand("g1", 8)
    report(online, 1)
    online.tick()
    assert wanted(online) == 8
    report(online, None)
    online.tick()
    assert wanted(online) == 2
    report(online, 0.5)
    assert online.publish_demand("g1", 8) == 16


def test_the_target_load_of_an_operator_that_is_gone_does_not_count(online: Driver) -> None:
    report(online, 1)
    online.client.delete(online.keys.single("operator_report"))
    assert online.publish_demand("g1", 8) == 2


def test_an_earlier_version_can_read_the_report(online: Driver) -> None:
    """An earlier version of Daybreak refuses unknown fields, so the stored report does not contain the target load."""
    report(online, 1)
    stored = online.client.get(online.keys.single("operator_report"))
    assert b"target_load" not in stored


# ── groups ────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_time_in_which_a_group_answers_requests_is_used_gpu_time(online: Driver) -> None:
    online.tick()
    busy = GroupRecord(id=GroupId("b"), state=GroupState.BUSY, endpoint="http://h:1", ranks=2)
    online.run(group.encode(online.keys, busy, ttl_s=60))
    online.pass_time(20_000)
    totals = online.totals()
    assert totals.idle_gpu_seconds == 0
    assert totals.used_gpu_seconds == pytest.approx(40.0, abs=2 * METER_MS / 1000)
