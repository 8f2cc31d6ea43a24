"""The guard: a leader whose threads cannot run keeps its task while it works, and loses it when it stands still."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from daybreak_server.domain.ids import GroupId, TaskId, Token
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.serving import Load
from daybreak_server.domain.tasks import Control, Failed, Lease, Settled, State
from daybreak_server.engines.rank.config import GangConfig
from daybreak_server.engines.rank.heartbeat import Heartbeat
from daybreak_server.engines.rank.lease_renewer import HeldLease, LeaseRenewer
from daybreak_server.engines.rank.watchdog import (
    LEASES_MAX,
    SharedHeartbeat,
    Watchdog,
    WatchdogLoop,
    is_stopped,
    with_lease,
    without_task,
)
from daybreak_server.ports.store_errors import StoreError
from testkit.pools import Pool
from testkit.waiting import wait_until

HERE = Path(__file__).parents[2]
"""Where the workload below is imported from."""
LEADER = """
import os, sys, threading
from daybreak_server import wiring
from daybreak_server.settings.tree import Settings
member = wiring.build_rank(
    Settings.model_validate_json(sys.stdin.readline()), "echo", on_broken=lambda why: os._exit(70), guarded=True
)
member.start()
sys.stdin.read()
member.stop(timeout_s=10)
"""


@pytest.fixture
def guarded() -> Iterator[Callable[[Pool], subprocess.Popen[str]]]:
    """Starts groups of one rank in processes of their own; stops them."""
    made: list[subprocess.Popen[str]] = []

    def start(pool: Pool) -> subprocess.Popen[str]:
        process = subprocess.Popen([sys.executable, "-c", LEADER], stdin=subprocess.PIPE, text=True, cwd=HERE)
        made.append(process)
        assert process.stdin is not None
        process.stdin.write(pool.settings.model_dump_json() + "\n")
        process.stdin.flush()
        return process

    yield start
    for one in made:
        one.send_signal(signal.SIGCONT)
        one.kill()
        one.communicate()


def strain(pools: Callable[..., Pool], **lease: float) -> Pool:
    return pools(
        workload="verification.faults.system.stress_workload:SPEC",
        lease={"lease_s": 3.0, "stall_s": 30.0, **lease},
    )


def guard_of(leader: subprocess.Popen[str]) -> int:
    children = Path(f"/proc/{leader.pid}/task")

    def look() -> int | None:
        found = [pid for one in children.glob("*/children") for pid in one.read_text().split()]
        return int(found[0]) if found else None

    return wait_until(look, 30, "the guard")


def test_a_step_that_holds_the_lock_for_longer_than_the_lease_keeps_its_task(
    pools: Callable[..., Pool], guarded: Callable[[Pool], subprocess.Popen[str]]
) -> None:
    """One C call of two leases, twice: the keeper's thread never runs, and nothing is run again."""
    pool = strain(pools)
    leader = guarded(pool)
    guard_of(leader)
    task = pool.submit(steps=2, hold_s=6.0)
    record = pool.wait(task)
    assert (record.attempt, record.strikes) == (1, 0)


def test_a_step_that_holds_the_lock_for_ever_is_a_strike_and_its_process_is_killed(
    pools: Callable[..., Pool], guarded: Callable[[Pool], subprocess.Popen[str]]
) -> None:
    """The leader cannot end itself; its guard does, and says why."""
    pool = strain(pools, stall_s=2.0)
    leader = guarded(pool)
    task = pool.submit(steps=2, stuck_at=2)
    assert leader.wait(60) == -signal.SIGKILL
    struck = pool.wait_for(task, lambda record: record.strikes == 1, "the strike")
    assert struck.error_code == "stalled"
    guarded(pool)
    assert pool.wait(task).attempt == 2


def test_a_stopped_leader_loses_its_task(
    pools: Callable[..., Pool], guarded: Callable[[Pool], subprocess.Popen[str]]
) -> None:
    """SIGSTOP is no work: the lease ends as if the leader had died, and its late words are refused."""
    pool = strain(pools)
    leader = guarded(pool)
    guard_of(leader)
    task = pool.submit(steps=200, hold_s=0.02)
    pool.wait_step(task, 2)
    os.kill(leader.pid, signal.SIGSTOP)
    wait_until(lambda: is_stopped(leader.pid), 10, "the stop")
    pool.wait_for(task, lambda record: record.strikes == 1, "the lost lease")
    os.kill(leader.pid, signal.SIGCONT)
    record = pool.wait(task)
    assert (record.attempt, record.strikes) == (2, 1)


def test_a_killed_leaders_task_is_a_strike_at_once(
    pools: Callable[..., Pool], guarded: Callable[[Pool], subprocess.Popen[str]]
) -> None:
    """Its guard says so long before the lease is over, and ends too."""
    pool = strain(pools, lease_s=60.0)
    leader = guarded(pool)
    watchdog = guard_of(leader)
    task = pool.submit(steps=200, hold_s=0.05)
    pool.wait_step(task, 2)
    leader.kill()
    leader.wait(10)
    struck = pool.wait_for(task, lambda record: record.strikes == 1, "the strike")
    assert struck.error_code == "rank_lost"
    wait_until(lambda: not _alive(watchdog), 10, "the guard's end")
    assert not [one for one in pool.view().groups if one.state != "lost"]


def test_a_leader_that_leaves_takes_its_guard_with_it(
    pools: Callable[..., Pool], guarded: Callable[[Pool], subprocess.Popen[str]]
) -> None:
    """In order: what it held was handed back, and is no strike."""
    pool = strain(pools)
    leader = guarded(pool)
    watchdog = guard_of(leader)
    task = pool.submit(steps=200, hold_s=0.05)
    pool.wait_step(task, 2)
    leader.communicate()
    wait_until(lambda: not _alive(watchdog), 10, "the guard's end")
    record = pool.get(task)
    assert (record.state, record.strikes, record.releases) == (State.QUEUED, 0, 1)


def test_a_killed_guard_is_started_again(
    pools: Callable[..., Pool], guarded: Callable[[Pool], subprocess.Popen[str]]
) -> None:
    """The task that runs notices nothing."""
    pool = strain(pools)
    leader = guarded(pool)
    first = guard_of(leader)
    task = pool.submit(steps=2, hold_s=0.5)
    pool.wait_for(task, lambda record: record.attempt == 1, "the claim")
    os.kill(first, signal.SIGKILL)
    assert pool.wait(task).attempt == 1
    wait_until(lambda: guard_of(leader) != first, 30, "another guard")


class _Queue:
    """Remembers what the guard asks."""

    def __init__(self, control: Control = Control.GO_ON) -> None:
        self.control = control
        self.away = False
        self.asked: list[object] = []

    def renew(self, lease: Lease) -> Control:
        self.asked.append(lease.task)
        if self.away:
            raise StoreError("the store is away")
        return self.control

    def settle(self, lease: Lease, outcome: object, **_: object) -> Settled:
        self.asked.append(outcome)
        return Settled(state=State.FAILED)


def test_a_guard_is_silent_while_the_keeper_works() -> None:
    """Only what is late is renewed, and nothing once the lease is another's."""
    page, queue = SharedHeartbeat.create(), _Queue()
    Heartbeat(60.0, mirror=page)
    watch = WatchdogLoop(queue, page, leader=os.getppid(), lease_s=3.0)  # type: ignore[arg-type]
    page.hold(LEASE)
    page.write(renewed=time.monotonic())
    assert watch.look()
    assert not queue.asked
    queue.control = Control.STALE
    watch._renewed = 0.0
    page.write(renewed=time.monotonic() - 2.0)
    assert watch.look()
    assert queue.asked == ["t"]
    watch._renewed = 0.0
    assert watch.look()
    assert queue.asked == ["t"]
    page.close()


def test_a_guard_tries_again_at_its_next_look() -> None:
    """When the store is back, a lease may have a second left: not a half lease later."""
    page, queue = SharedHeartbeat.create(), _Queue()
    Heartbeat(60.0, mirror=page)
    watch = WatchdogLoop(queue, page, leader=os.getppid(), lease_s=3.0)  # type: ignore[arg-type]
    page.hold(LEASE)
    page.write(renewed=time.monotonic() - 2.0)
    watch._renewed = 0.0
    queue.away = True
    assert all(watch.look() for _ in range(2))
    queue.away = False
    assert all(watch.look() for _ in range(2))
    assert queue.asked == ["t"] * 3  # the last look had nothing to do
    page.close()


def test_a_lease_runs_from_the_question_not_from_the_answer() -> None:
    """A keeper that hears an answer late, because the work holds Python's lock, must not think the lease newer."""
    arrived: list[float] = []

    class Late(_Queue):
        def renew(self, lease: Lease) -> Control:
            arrived.append(time.monotonic())
            time.sleep(0.2)
            return super().renew(lease)

    record = GroupRecord(id=LEASE.group, state=GroupState.BUSY)
    config = GangConfig(pool="p")
    lease_renewer = LeaseRenewer(Late(), config, Heartbeat(60.0), record=record, on_break=print)  # type: ignore[arg-type]
    hold = HeldLease(LEASE, Control.GO_ON)
    before = hold.renewed
    lease_renewer._renew(hold)
    assert before < hold.renewed <= arrived[0]


def test_a_guard_knows_of_each_task_without_a_message() -> None:
    """The lease is on the page; the group's record is told only when more than its task has changed."""
    page = SharedHeartbeat.create()
    assert page.held() == ()
    page.hold(LEASE)
    assert page.held() == (LEASE,)
    page.drop(LEASE.task)
    assert page.held() == ()
    page.close()
    idle = GroupRecord(id=GroupId("g"), state=GroupState.IDLE)
    busy = replace(idle, state=GroupState.BUSY, tasks=(TaskId("t"),), since_ms=5)
    assert without_task(busy) == without_task(idle)
    assert without_task(replace(busy, state=GroupState.DRAINING)) != without_task(busy)
    assert with_lease(idle, [LEASE]) == replace(busy, since_ms=0)
    assert with_lease(busy, []).state is GroupState.IDLE


LEASE = Lease(task=TaskId("t"), token=Token("1.a"), group=GroupId("g"), lease_s=3.0)


def other_lease(number: int) -> Lease:
    return Lease(task=TaskId(f"t{number}"), token=Token(f"1.{number}"), group=GroupId("g"), lease_s=3.0)


def test_a_guard_keeps_all_leases_that_its_leader_holds() -> None:
    """By task: one that ends, and one that becomes another's, leave the others as they are."""
    page, queue = SharedHeartbeat.create(), _Queue()
    Heartbeat(60.0, mirror=page)
    watch = WatchdogLoop(queue, page, leader=os.getppid(), lease_s=3.0)  # type: ignore[arg-type]
    for number in range(3):
        page.hold(other_lease(number))
    page.hold(replace(other_lease(1), token=Token("2.1")))
    page.drop(TaskId("t0"))
    assert {(lease.task, lease.token) for lease in page.held()} == {("t1", "2.1"), ("t2", "1.2")}
    page.write(renewed=time.monotonic() - 2.0)
    watch._renewed = 0.0
    assert watch.look()
    assert sorted(map(str, queue.asked)) == ["t1", "t2"]
    queue.asked.clear()
    watch.on_leader_exit()
    assert [type(one) for one in queue.asked] == [Failed, Failed]
    page.close()


def test_a_page_has_room_for_its_leases_and_says_when_it_has_not() -> None:
    """A slot that was freed is taken again."""
    page = SharedHeartbeat.create()
    for number in range(LEASES_MAX):
        page.hold(other_lease(number))
    with pytest.raises(ValueError, match="at most"):
        page.hold(LEASE)
    page.drop(TaskId("t5"))
    page.hold(LEASE)
    assert len(page.held()) == LEASES_MAX
    page.close()


def test_a_keeper_renews_each_lease_and_shows_its_guard_the_oldest() -> None:
    """A task that is claimed beside another must not make the other's lease look fresh."""
    queue = _Queue()
    record = GroupRecord(id=LEASE.group, state=GroupState.BUSY)
    watchdog = Watchdog(["/bin/true"], told={})
    lease_renewer = LeaseRenewer(
        queue,  # type: ignore[arg-type]
        GangConfig(pool="p"),
        Heartbeat(60.0),
        record=record,
        on_break=print,
        watchdog=watchdog,
    )
    first = HeldLease(LEASE, Control.GO_ON)
    first._renewed -= 100.0
    lease_renewer.hold(first)
    lease_renewer.hold(HeldLease(other_lease(1), Control.GO_ON))
    sight = watchdog.page.read()
    assert sight is not None
    assert sight.renewed == first.renewed
    lease_renewer.drop(LEASE.task)
    assert watchdog.page.held() == (other_lease(1),)
    watchdog.page.close()


def test_a_guard_tells_the_store_of_its_group_all_that_the_leader_said() -> None:
    """The record travels as JSON, and comes back as it was."""
    page = SharedHeartbeat.create()
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
    watch = WatchdogLoop(_Queue(), page, leader=os.getppid(), lease_s=3.0)  # type: ignore[arg-type]
    watch.hear(json.loads(json.dumps({"record": asdict(record)})))
    assert watch._record == record
    page.close()


def test_a_page_is_read_as_it_was_written() -> None:
    """Also what is longer than its room."""
    page = SharedHeartbeat.create()
    page.write(beat=1.5, limit_s=2.5, what="ä" * 40)
    sight = page.read()
    assert sight is not None
    assert (sight.beat, sight.limit_s, sight.renewed) == (1.5, 2.5, 0.0)
    assert sight.what.startswith("ä" * 16)
    page.close()


def test_a_pulse_shows_its_phase_on_the_page() -> None:
    """With the limit that holds for it."""
    page = SharedHeartbeat.create()
    heartbeat = Heartbeat(60.0, mirror=page)
    with heartbeat.during("model", 5.0):
        sight = page.read()
    assert sight is not None
    assert (sight.what, sight.limit_s) == ("model", 5.0)
    page.close()


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
