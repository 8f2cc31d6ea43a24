"""Tests of groups of two ranks with real processes, collectives and Valkey, and of each way in which ranks can fail."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from daybreak_server.domain.tasks import State
from testkit.echo import echo_text
from testkit.ranks import Ranks
from testkit.waiting import wait_until

LONG = {"message": "long", "steps": 4000, "step_s": 0.02, "all_ranks": True}


@pytest.fixture
def ranks(tmp_path: Path) -> Iterator[Callable[..., Ranks]]:
    """Starts groups of two ranks, stops them after the test, and checks that no process is left."""
    groups: list[Ranks] = []

    def start(pool: object) -> Ranks:
        groups.append(Ranks(pool.settings, pool.name, tmp_path / f"group-{len(groups)}"))
        return groups[-1]

    yield start
    for group in groups:
        group.stop()
        print(group.logs())
    assert not any(process.is_alive() for group in groups for process in group.processes)


def pids_of_groups(pool: object) -> list[tuple[int, ...]]:
    return [group.pids for group in pool.view().groups]


def test_one_warm_group_serves_tasks_with_every_kind_of_end(
    pools: Callable, ranks: Callable[..., Ranks]
) -> None:
    """The same processes run tasks that succeed, are cancelled, fail for good, and fail once on every rank."""
    pool = pools(ranks=2)
    group = ranks(pool)
    first = pool.submit(message="one", steps=6, all_ranks=True)
    pool.wait(first)
    assert pool.output(first) == echo_text("one", 6)
    pids = pids_of_groups(pool)
    assert [set(group_pids) for group_pids in pids] == [{process.pid for process in group.processes}]

    cancelled = pool.submit(**LONG)
    pool.wait_step(cancelled)
    pool.cancel(cancelled)
    stopped_at = pool.wait(cancelled, State.CANCELLED).step
    assert stopped_at is not None
    assert stopped_at < 4000

    refused = pool.submit(message="no", steps=3, fail_at=2, fail_kind="permanent", all_ranks=True)
    record = pool.wait(refused, State.FAILED)
    assert (record.error_code, record.attempt) == ("echo_refused", 1)

    retried = pool.submit(message="again", steps=3, fail_at=2, fail_attempts=1, all_ranks=True)
    record = pool.wait(retried)
    assert (record.attempt, record.strikes) == (2, 1)
    assert pool.output(retried) == echo_text("again", 3)
    assert pids_of_groups(pool) == pids
    assert group.alive()


def test_an_error_on_one_rank_breaks_the_group(pools: Callable, ranks: Callable[..., Ranks]) -> None:
    """The ranks are at different steps, so all of them end. The strike has the failed rank's own message."""
    pool = pools(ranks=2)
    group = ranks(pool)
    task = pool.submit(
        message="x", steps=50, step_s=0.01, fail_at=5, fail_rank=1, all_ranks=True, max_strikes=1
    )
    record = pool.wait(task, State.FAILED)
    assert (record.error_code, record.error_message) == ("echo_failed", "step 5 failed, as requested")
    assert group.all_gone() == [70, 70]


def test_a_killed_follower_is_a_strike_at_once_and_a_new_group_takes_over(
    pools: Callable, ranks: Callable[..., Ranks]
) -> None:
    """If a follower is killed inside a collective, the strike comes long before the lease ends."""
    pool = pools(ranks=2, lease={"lease_s": 60.0, "stall_s": 60.0})
    group = ranks(pool)
    task = pool.submit(message="k", steps=400, step_s=0.02, all_ranks=True)
    pool.wait_step(task)
    killed_at = time.monotonic()
    group.kill(1)
    pool.wait_for(task, lambda record: record.strikes == 1, "the strike")
    assert time.monotonic() - killed_at < 20
    assert pool.get(task).error_code == "rank_lost"
    assert group.all_gone()[0] == 70
    second = ranks(pool)
    pool.wait_for(task, lambda record: record.attempt == 2, "the second attempt")
    pool.cancel(task)
    pool.wait(task, State.CANCELLED)
    assert second.alive()


def test_a_drained_group_releases_its_task_with_a_checkpoint_and_another_resumes_it(
    pools: Callable, ranks: Callable[..., Ranks]
) -> None:
    """A follower on a draining node is asked to leave.

    There is no strike, no group counts as lost, and the result is that of an uninterrupted run.
    """
    pool = pools(ranks=2)
    first = ranks(pool)
    task = pool.submit(message="resume", steps=100, step_s=0.05, all_ranks=True)
    pool.wait_step(task, 3)
    first.ask_to_leave(1)
    record = pool.wait_for(task, lambda record: record.releases == 1, "the release")
    assert (record.state, record.strikes) == (State.QUEUED, 0)
    assert "checkpoint" in pool.types(task)
    wait_until(lambda: not pool.view().groups, 30, "the group to have left")
    assert pool.call(pool.store.measure(pool.name)).total("groups_lost") == 0
    ranks(pool)
    record = pool.wait(task)
    assert record.attempt == 2
    assert (record.resumed_from_step or 0) >= 3
    assert pool.output(task) == echo_text("resume", 100)
    steps = [
        event.data["step"] for event in pool.events(task) if event.type == "progress" and "step" in event.data
    ]
    assert steps == sorted(steps)


def test_a_step_that_stalls_is_a_strike_and_the_group_ends(
    pools: Callable, ranks: Callable[..., Ranks]
) -> None:
    """One rank hangs, and the other waits in a collective. The strike comes when the step has taken too long."""
    pool = pools(ranks=2, lease={"lease_s": 60.0, "stall_s": 2.0})
    group = ranks(pool)
    task = pool.submit(message="h", steps=9, fail_at=4, fail_kind="hang", fail_rank=1, all_ranks=True)
    record = pool.wait_for(task, lambda record: record.strikes == 1, "the strike")
    assert record.error_code == "stalled"
    (retrying,) = [event for event in pool.events(task) if event.type == "retrying"]
    assert retrying.data["reason"] == "stalled"
    assert group.all_gone() == [70, 70]


def test_a_zombie_leader_abandons_a_task_that_another_group_has(
    pools: Callable, ranks: Callable[..., Ranks]
) -> None:
    """A leader that was frozen for longer than its lease leaves no file but a checkpoint behind, and stays alive."""
    pool = pools(ranks=2, lease={"lease_s": 1.0, "stall_s": 60.0})
    frozen = ranks(pool)
    task = pool.submit(message="z", steps=150, step_s=0.02, all_ranks=True)
    pool.wait_step(task)
    frozen.freeze(0)
    pool.wait_for(task, lambda record: record.strikes == 1, "the lost lease")
    ranks(pool)
    pool.wait_for(task, lambda record: record.attempt == 2, "the second attempt")
    frozen.thaw(0)
    record = pool.wait(task)
    assert pool.output(task) == echo_text("z", 150)
    assert {ref.key.split("/")[1].split(".")[0] for ref in record.artifacts} == {"2"}
    stored = {stat.key for stat in pool.blobs.list(f"{task}/")}
    assert {key.split("/")[1].split(".")[0] for key in stored if "checkpoints" not in key} == {"2"}
    assert frozen.alive()


def test_a_library_that_exits_on_every_rank_is_a_strike_and_the_group_lives(
    pools: Callable, ranks: Callable[..., Ranks]
) -> None:
    """The same processes survive `sys.exit`, an interrupt and an error text that cannot be stored, on both ranks."""
    pool = pools(ranks=2, workload="testkit.misbehaving:SPEC")
    group = ranks(pool)
    for error, reason in (
        ("exit", "SystemExit: 3"),
        ("interrupt", "KeyboardInterrupt"),
        ("surrogate", "caf\\udce9"),
    ):
        record = pool.wait(pool.submit(error=error, where="later", max_strikes=1), State.FAILED)
        assert reason in record.error_message
    pool.wait(pool.submit())
    assert group.alive()


@pytest.mark.parametrize(("error", "code"), [("exit", "workload_failed"), ("os exit", "rank_lost")])
def test_a_follower_that_exits_is_one_strike_and_one_new_group(
    pools: Callable, ranks: Callable[..., Ranks], error: str, code: str
) -> None:
    """If the follower raises, the strike has its error. If its process ends, the strike says that a rank is lost."""
    pool = pools(ranks=2, workload="testkit.misbehaving:SPEC")
    group = ranks(pool)
    task = pool.submit(error=error, where="later", rank=1, attempts=1)
    record = pool.wait_for(task, lambda record: record.strikes == 1, "the strike")
    assert (record.error_code, record.releases) == (code, 0)
    group.all_gone()
    ranks(pool)
    assert pool.wait(task).attempt == 2


def test_a_follower_that_exits_while_it_loads_ends_its_group(
    pools: Callable, ranks: Callable[..., Ranks]
) -> None:
    """The leader does not wait for a rank whose work thread has ended."""
    pool = pools(ranks=2, workload="testkit.misbehaving:SPEC", options={"load": "exit", "load_rank": 1})
    group = ranks(pool)
    assert group.all_gone() == [70, 70]
    assert "SystemExit: 3" in group.logs()
