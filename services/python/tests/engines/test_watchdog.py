"""The watchdog renews a leader's leases when the leader's own threads cannot, as long as the work advances. When the
leader stalls or dies, the watchdog settles the leader's tasks."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daybreak_server.domain.tasks import State
from daybreak_server.engines.common.watchdog_process import is_stopped
from testkit.pools import Pool
from testkit.processes import alive
from testkit.waiting import wait_until

HERE = Path(__file__).parents[2]
"""The folder from which the leader imports the stress workload."""
LEADER = """
import os, sys, threading
from daybreak_server import wiring
from daybreak_server.settings.tree import Settings
rank = wiring.build_rank(
    Settings.model_validate_json(sys.stdin.readline()), "echo", on_broken=lambda why: os._exit(70), with_watchdog=True
)
rank.start()
sys.stdin.read()
"""
LEAVES = f"""{LEADER}
rank.stop(timeout_s=10)
"""
KILLED_WHILE_BROKEN = f"""{LEADER}
import signal
from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.domain.tasks import Failed
RedisQueue.deregister_dead = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
rank._loop.break_group(Failed(code="rank_lost", message="rank 1 has ended"))
rank.wait_ended(60)
"""


@pytest.fixture
def start_leader() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts groups of one rank, each in a separate process, and kills these processes after the test."""
    started: list[subprocess.Popen[str]] = []

    def start(pool: Pool, program: str = LEAVES) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, text=True, cwd=HERE
        )
        started.append(process)
        assert process.stdin is not None
        process.stdin.write(pool.settings.model_dump_json() + "\n")
        process.stdin.flush()
        return process

    yield start
    for process in started:
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.communicate()


def stress_pool(pools: Callable[..., Pool], **lease: float) -> Pool:
    return pools(
        workload="verification.faults.system.stress_workload:SPEC",
        lease={"lease_s": 3.0, "stall_s": 30.0, **lease},
    )


def watchdog_of(leader: subprocess.Popen[str]) -> int:
    children = Path(f"/proc/{leader.pid}/task")

    def first_child() -> int | None:
        pids = [pid for file in children.glob("*/children") for pid in file.read_text().split()]
        return int(pids[0]) if pids else None

    return wait_until(first_child, 30, "the watchdog")


def test_a_step_that_holds_the_lock_for_longer_than_the_lease_keeps_its_task(
    pools: Callable[..., Pool], start_leader: Callable[[Pool], subprocess.Popen[str]]
) -> None:
    """Two calls in C, each as long as two leases, keep the lease renewer from running. The task has one attempt."""
    pool = stress_pool(pools)
    leader = start_leader(pool)
    watchdog_of(leader)
    task = pool.submit(steps=2, hold_s=6.0)
    record = pool.wait(task)
    assert (record.attempt, record.strikes) == (1, 0)


def test_a_step_that_holds_the_lock_forever_is_a_strike_and_its_process_is_killed(
    pools: Callable[..., Pool], start_leader: Callable[[Pool], subprocess.Popen[str]]
) -> None:
    """The leader cannot end itself, so its watchdog kills it and reports the reason."""
    # On a busy machine, a lease of 3 s may end before the watchdog acts.
    pool = stress_pool(pools, stall_s=2.0, lease_s=15.0)
    leader = start_leader(pool)
    task = pool.submit(steps=2, stuck_at=2)
    assert leader.wait(60) == -signal.SIGKILL
    record = pool.wait_for(task, lambda record: record.strikes == 1, "the strike")
    assert record.error_code == "stalled"
    start_leader(pool)
    assert pool.wait(task).attempt == 2


def test_a_stopped_leader_loses_its_task(
    pools: Callable[..., Pool], start_leader: Callable[[Pool], subprocess.Popen[str]]
) -> None:
    """Nothing renews the lease after SIGSTOP, and the store refuses the leader's calls after SIGCONT."""
    pool = stress_pool(pools)
    leader = start_leader(pool)
    watchdog_of(leader)
    task = pool.submit(steps=200, hold_s=0.02)
    pool.wait_step(task, 2)
    os.kill(leader.pid, signal.SIGSTOP)
    wait_until(lambda: is_stopped(leader.pid), 60, "the stop")
    pool.wait_for(task, lambda record: record.strikes == 1, "the lost lease")
    os.kill(leader.pid, signal.SIGCONT)
    record = pool.wait(task)
    assert (record.attempt, record.strikes) == (2, 1)


def test_the_task_of_a_killed_leader_gets_a_strike_at_once(
    pools: Callable[..., Pool], start_leader: Callable[[Pool], subprocess.Popen[str]]
) -> None:
    """The leader's watchdog settles the task long before the lease ends, and then exits."""
    pool = stress_pool(pools, lease_s=60.0)
    leader = start_leader(pool)
    watchdog = watchdog_of(leader)
    task = pool.submit(steps=200, hold_s=0.05)
    pool.wait_step(task, 2)
    leader.kill()
    leader.wait(60)
    record = pool.wait_for(task, lambda record: record.strikes == 1, "the strike")
    assert record.error_code == "rank_lost"
    wait_until(lambda: not alive(watchdog), 60, "the end of the watchdog")
    assert not [group for group in pool.view().groups if group.state != "lost"]


def test_a_broken_leader_that_is_killed_before_it_deregisters_leaves_no_record(
    pools: Callable[..., Pool], start_leader: Callable[..., subprocess.Popen[str]]
) -> None:
    """Its watchdog removes the record long before the record's TTL ends. Else, the pool would show an idle group."""
    pool = stress_pool(pools, lease_s=60.0)
    leader = start_leader(pool, KILLED_WHILE_BROKEN)
    task = pool.submit(steps=200, hold_s=0.05)
    pool.wait_step(task, 2)
    assert leader.stdin is not None
    leader.stdin.close()
    assert leader.wait(60) == -signal.SIGKILL
    assert pool.get(task).strikes == 1
    wait_until(lambda: not pool.view().groups, 30, "the end of the group's record")


def test_a_leader_that_leaves_stops_its_watchdog(
    pools: Callable[..., Pool], start_leader: Callable[[Pool], subprocess.Popen[str]]
) -> None:
    """The leader's task is released without a strike."""
    pool = stress_pool(pools)
    leader = start_leader(pool)
    watchdog = watchdog_of(leader)
    task = pool.submit(steps=200, hold_s=0.05)
    pool.wait_step(task, 2)
    leader.communicate()
    wait_until(lambda: not alive(watchdog), 60, "the end of the watchdog")
    record = pool.get(task)
    assert (record.state, record.strikes, record.releases) == (State.QUEUED, 0, 1)


def test_a_killed_watchdog_is_restarted(
    pools: Callable[..., Pool], start_leader: Callable[[Pool], subprocess.Popen[str]]
) -> None:
    """The running task continues in its first attempt."""
    pool = stress_pool(pools)
    leader = start_leader(pool)
    first = watchdog_of(leader)
    task = pool.submit(steps=2, hold_s=0.5)
    pool.wait_for(task, lambda record: record.attempt == 1, "the claim")
    os.kill(first, signal.SIGKILL)
    assert pool.wait(task).attempt == 1
    wait_until(lambda: watchdog_of(leader) != first, 30, "another watchdog")
