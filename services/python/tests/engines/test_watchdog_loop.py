"""The watchdog's loop, the shared memory that it reads, and what the leader sends to it."""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import asdict, replace

import pytest

from daybreak_server.domain.ids import AttemptToken, GroupId, TaskId
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.serving_load import Load
from daybreak_server.domain.tasks import Control, Failed, Lease, Settled, State
from daybreak_server.engines.common.config import GroupConfig
from daybreak_server.engines.common.heartbeat import Heartbeat
from daybreak_server.engines.common.lease_renewer import HeldLease, LeaseRenewer
from daybreak_server.engines.common.shared_heartbeat import MAX_LEASES, SharedHeartbeat
from daybreak_server.engines.common.watchdog import Watchdog, without_task
from daybreak_server.engines.common.watchdog_process import WatchdogLoop, with_leases
from daybreak_server.entrypoints.watchdog import _FirstLine
from daybreak_server.ports.store_errors import StoreError


class _Queue:
    """Records each renewed task and each settled outcome, in order."""

    def __init__(self, control: Control = Control.CONTINUE) -> None:
        self.control = control
        self.down = False
        self.calls: list[object] = []

    def renew(self, lease: Lease) -> Control:
        self.calls.append(lease.task)
        if self.down:
            raise StoreError("the store is down")
        return self.control

    def settle(self, lease: Lease, outcome: object, **_: object) -> Settled:
        self.calls.append(outcome)
        return Settled(state=State.FAILED)


def test_a_watchdog_renews_only_late_leases() -> None:
    """The watchdog does not renew a lease that the lease renewer has just renewed, nor a stale lease."""
    shared, queue = SharedHeartbeat.create(), _Queue()
    Heartbeat(60.0, mirror=shared)
    loop = WatchdogLoop(queue, shared, leader=os.getppid(), lease_s=3.0)  # type: ignore[arg-type]
    shared.hold(LEASE)
    shared.write(renewed_at=time.monotonic())
    assert loop.poll()
    assert not queue.calls
    queue.control = Control.STALE
    loop._renewed_at = 0.0
    shared.write(renewed_at=time.monotonic() - 2.0)
    assert loop.poll()
    assert queue.calls == ["t"]
    loop._renewed_at = 0.0
    assert loop.poll()
    assert queue.calls == ["t"]
    shared.close()


def test_a_watchdog_tries_again_at_its_next_poll() -> None:
    """When the store is back, a lease may have only a second left, so the watchdog must retry soon."""
    shared, queue = SharedHeartbeat.create(), _Queue()
    Heartbeat(60.0, mirror=shared)
    loop = WatchdogLoop(queue, shared, leader=os.getppid(), lease_s=3.0)  # type: ignore[arg-type]
    shared.hold(LEASE)
    shared.write(renewed_at=time.monotonic() - 2.0)
    loop._renewed_at = 0.0
    queue.down = True
    assert all(loop.poll() for _ in range(2))
    queue.down = False
    assert all(loop.poll() for _ in range(2))
    assert queue.calls == ["t"] * 3  # the last poll had nothing to do
    shared.close()


def test_a_lease_runs_from_the_request_not_from_the_reply() -> None:
    """If the work holds Python's lock, a reply is read late. The lease still runs from the request."""
    arrived: list[float] = []

    class SlowQueue(_Queue):
        def renew(self, lease: Lease) -> Control:
            arrived.append(time.monotonic())
            time.sleep(0.2)
            return super().renew(lease)

    record = GroupRecord(id=LEASE.group, state=GroupState.BUSY)
    config = GroupConfig(pool="p")
    lease_renewer = LeaseRenewer(SlowQueue(), config, Heartbeat(60.0), record=record, on_break=print)  # type: ignore[arg-type]
    held = HeldLease(LEASE, Control.CONTINUE)
    before = held.renewed_at
    lease_renewer._renew(held)
    assert before < held.renewed_at <= arrived[0]


def test_a_new_task_needs_no_message_to_the_watchdog() -> None:
    """The watchdog reads leases from shared memory. The leader sends the group's record again only if something other
    than the group's work has changed."""
    shared = SharedHeartbeat.create()
    assert shared.held() == ()
    shared.hold(LEASE)
    assert shared.held() == (LEASE,)
    shared.drop(LEASE.task)
    assert shared.held() == ()
    shared.close()
    idle = GroupRecord(id=GroupId("g"), state=GroupState.IDLE)
    busy = replace(idle, state=GroupState.BUSY, tasks=(TaskId("t"),), since_ms=5)
    assert without_task(busy) == without_task(idle)
    assert without_task(replace(busy, load=Load(in_flight=3))) == without_task(idle)
    assert without_task(replace(busy, state=GroupState.DRAINING)) != without_task(busy)
    assert with_leases(idle, [LEASE]) == replace(busy, since_ms=0)
    assert with_leases(busy, []).state is GroupState.IDLE


LEASE = Lease(task=TaskId("t"), token=AttemptToken("1.a"), group=GroupId("g"), lease_s=3.0)


def other_lease(number: int) -> Lease:
    return Lease(
        task=TaskId(f"t{number}"), token=AttemptToken(f"1.{number}"), group=GroupId("g"), lease_s=3.0
    )


def test_a_watchdog_renews_and_settles_all_leases_of_its_leader() -> None:
    """If one lease is dropped and another is replaced, the third one stays as it is."""
    shared, queue = SharedHeartbeat.create(), _Queue()
    Heartbeat(60.0, mirror=shared)
    loop = WatchdogLoop(queue, shared, leader=os.getppid(), lease_s=3.0)  # type: ignore[arg-type]
    for number in range(3):
        shared.hold(other_lease(number))
    shared.hold(replace(other_lease(1), token=AttemptToken("2.1")))
    shared.drop(TaskId("t0"))
    assert {(lease.task, lease.token) for lease in shared.held()} == {("t1", "2.1"), ("t2", "1.2")}
    shared.write(renewed_at=time.monotonic() - 2.0)
    loop._renewed_at = 0.0
    assert loop.poll()
    assert sorted(map(str, queue.calls)) == ["t1", "t2"]
    queue.calls.clear()
    loop.on_leader_exit()
    assert [type(outcome) for outcome in queue.calls] == [Failed, Failed]
    shared.close()


def test_a_full_shared_memory_refuses_another_lease() -> None:
    """A lease that is dropped frees its slot for another one."""
    shared = SharedHeartbeat.create()
    for number in range(MAX_LEASES):
        shared.hold(other_lease(number))
    with pytest.raises(ValueError, match="at most"):
        shared.hold(LEASE)
    shared.drop(TaskId("t5"))
    shared.hold(LEASE)
    assert len(shared.held()) == MAX_LEASES
    shared.close()


def test_a_lease_renewer_shows_the_least_recently_renewed_lease() -> None:
    """A second claim must not make the lease of the first task look as if it had just been renewed."""
    queue = _Queue()
    record = GroupRecord(id=LEASE.group, state=GroupState.BUSY)
    watchdog = Watchdog(["/bin/true"], config={})
    lease_renewer = LeaseRenewer(
        queue,  # type: ignore[arg-type]
        GroupConfig(pool="p"),
        Heartbeat(60.0),
        record=record,
        on_break=print,
        watchdog=watchdog,
    )
    first = HeldLease(LEASE, Control.CONTINUE)
    first._renewed_at -= 100.0
    lease_renewer.hold(first)
    lease_renewer.hold(HeldLease(other_lease(1), Control.CONTINUE))
    snapshot = watchdog.shared.read()
    assert snapshot is not None
    assert snapshot.renewed_at == first.renewed_at
    lease_renewer.drop(LEASE.task)
    assert watchdog.shared.held() == (other_lease(1),)
    watchdog.shared.close()


def test_a_record_reaches_the_watchdog_unchanged() -> None:
    """The leader sends its record as JSON."""
    shared = SharedHeartbeat.create()
    record = GroupRecord(
        id=GroupId("g"),
        state=GroupState.BUSY,
        tasks=(TaskId("t"),),
        hosts=("a", "b"),
        pids=(1, 2),
        wake={"model": 1.5},
        endpoint="http://a:9000",
        models=("m",),
        capacity=4,
        load=Load(in_flight=1),
    )
    loop = WatchdogLoop(_Queue(), shared, leader=os.getppid(), lease_s=3.0)  # type: ignore[arg-type]
    loop.on_message(json.loads(json.dumps({"record": asdict(record)})))
    assert loop._record == record
    shared.close()


def test_shared_memory_is_read_as_it_was_written() -> None:
    """Only the name of an activity is truncated, if it is too long."""
    shared = SharedHeartbeat.create()
    shared.write(beat_at=1.5, limit_s=2.5, activity="ä" * 40)
    snapshot = shared.read()
    assert snapshot is not None
    assert (snapshot.beat_at, snapshot.limit_s, snapshot.renewed_at) == (1.5, 2.5, 0.0)
    assert snapshot.activity.startswith("ä" * 16)
    shared.close()


def test_a_heartbeat_mirrors_its_activity_in_shared_memory() -> None:
    """Shared memory has the activity and the activity's own limit."""
    shared = SharedHeartbeat.create()
    heartbeat = Heartbeat(60.0, mirror=shared)
    with heartbeat.during("model", 5.0):
        snapshot = shared.read()
    assert snapshot is not None
    assert (snapshot.activity, snapshot.limit_s) == ("model", 5.0)
    shared.close()


def test_a_log_that_cannot_be_set_up_does_not_stop_a_watchdog(capsys: pytest.CaptureFixture[str]) -> None:
    """The watchdog sets up its log when it logs its first line. If the setup fails, the watchdog prints the reason to
    standard error and continues, because it may have leases to settle."""
    line = logging.LogRecord("daybreak", logging.WARNING, __file__, 1, "the leader is gone", None, None)
    _FirstLine({"format": "no such format"}).handle(line)
    assert "no such format" in capsys.readouterr().err
