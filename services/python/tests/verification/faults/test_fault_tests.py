"""Tests of the fault tests: a seed repeats its schedule, a failpoint fires once, a small run keeps every promise."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from daybreak.wire import TaskState
from verification.faults import mixed
from verification.faults.cluster import FaultCluster
from verification.faults.failpoints import ALL, Failpoints
from verification.faults.history import History, read
from verification.faults.load import unended
from verification.faults.options import ClusterOptions, PoolOptions
from verification.faults.scenario_catalogue import Scenario, ScenarioContext, ViolatedError, run
from verification.faults.schedule import schedule
from verification.results import Row

POOLS = (PoolOptions(name="solo", groups=2), PoolOptions(name="pair", ranks=2, groups=1))
RUN = {"seconds": 60.0, "rate": 5.0, "deaths": 50, "lease_s": 1.5}


def test_a_seed_repeats_its_schedule() -> None:
    """The same seed gives the same tasks and faults. Another seed gives other tasks and faults."""
    first = schedule(seed=7, pools=POOLS, **RUN)
    assert first == schedule(seed=7, pools=POOLS, **RUN)
    assert first != schedule(seed=8, pools=POOLS, **RUN)
    assert sum(fault.action in ("kill", "arm") for fault in first.faults) == 50
    assert {fault.target for fault in first.faults if fault.action == "arm"} <= set(ALL)
    assert {fault.target for fault in first.faults} >= {"leader", "follower", "gateway"}


def test_a_longer_schedule_only_adds_tasks() -> None:
    """A longer run begins with the tasks of a shorter run of the same seed, so it can reproduce what that run found."""
    short = schedule(seed=7, pools=POOLS, **RUN).submissions
    long = schedule(seed=7, pools=POOLS, **{**RUN, "seconds": 120.0}).submissions
    assert long[: len(short)] == short
    assert len(long) > len(short)


def test_a_failpoint_fires_once_after_its_passes(tmp_path: Path) -> None:
    """A failpoint armed with two passes kills the process that makes the third pass. Later passes have no effect."""
    (tmp_path / "armed").mkdir()
    (tmp_path / "armed" / "after-claim.2").touch()

    def child(passes: int) -> int:
        pid = os.fork()
        if pid == 0:
            points = Failpoints(tmp_path, process="child")
            for _ in range(passes):
                points.reach("after-claim")
            os._exit(0)
        return os.waitpid(pid, 0)[1]

    assert child(2) == 0
    assert os.WTERMSIG(child(1)) == signal.SIGKILL
    assert child(3) == 0
    assert (tmp_path / "hits").read_text().split()[:2] == ["after-claim", "child"]
    assert not list((tmp_path / "armed").iterdir())


def test_a_truncated_history_can_be_read(tmp_path: Path) -> None:
    """If the fault tests themselves are killed, the complete lines of their history can still be read."""
    history = History(tmp_path / "history", seed=3)
    call = history.invoke("get", task="a")
    history.done(call, "get", "ok", task="a", state="queued")
    history.close()
    with history.path.open("a") as file:
        file.write('{"op": "get", "ki')
    assert [line["op"] for line in read(history.path)] == ["run", "get", "get"]


def test_an_outcome_survives_json() -> None:
    """A run in another process returns its outcome as JSON."""
    outcome = mixed.Outcome(
        kills=Counter(leader=3), states=Counter(succeeded=9), counts=Counter({"event.saw": 99}), seconds=1.5
    )
    assert mixed.Outcome.from_json(outcome.as_json()) == outcome


def test_an_incomplete_scenario_runs_again_and_a_broken_promise_does_not() -> None:
    """The log mentions the second run, there is no third run, and a violation is never retried."""
    messages: list[str] = []
    context = ScenarioContext(log=messages.append)
    raised: list[Exception] = []

    def scenario(*raises: Exception) -> Scenario:
        remaining = list(raises)

        def run(_: ScenarioContext) -> list[Row]:
            if remaining:
                raised.append(remaining.pop(0))
                raise raised[-1]
            return [Row("what", 1, "tasks")]

        return Scenario(name="name", about="a scenario", run=run)

    assert run(scenario(TimeoutError("slow")), context)[0].what == "what"
    assert any("INCOMPLETE, running it again: TimeoutError: slow" in line for line in messages)
    with pytest.raises(TimeoutError):
        run(scenario(TimeoutError("slow"), TimeoutError("slow")), context)
    raised.clear()
    with pytest.raises(ViolatedError):
        run(scenario(ViolatedError("lost")), context)
    assert len(raised) == 1


def test_a_task_that_is_requeued_between_two_requests_has_not_ended() -> None:
    """The task runs while the queued tasks are listed, and is queued while the running tasks are listed."""

    class Client:
        def __init__(self, *states: str) -> None:
            self._states = list(states)

        async def list(self, *, pool: str, limit: int, state: str | None = None) -> AsyncIterator[Any]:
            task = SimpleNamespace(id=pool, state=TaskState(self._states.pop(0)))
            if state in (None, task.state):
                yield task

    async def unended_tasks(*states: str) -> list[Any]:
        return await unended(Client(*states), "solo")  # type: ignore[arg-type]

    assert [task.state for task in asyncio.run(unended_tasks("running", "queued", "queued"))] == ["queued"]
    assert asyncio.run(unended_tasks("running", "succeeded", "succeeded")) == []


def test_a_small_mixed_run_keeps_every_promise(tmp_path: Path) -> None:
    """Processes of a small cluster are killed. The checker finds no violation, and no process remains at the end."""
    options = ClusterOptions(
        folder=tmp_path / "cluster", pools=(PoolOptions(groups=2),), gateways=1, lease_s=1.0
    )
    plan = schedule(seed=5, seconds=4.0, rate=4.0, deaths=6, pools=options.pools, lease_s=options.lease_s)
    with FaultCluster(options) as cluster:
        pids = [target.pid for target in cluster.targets()]
        cluster.kill(cluster.targets("leader")[0])
        cluster.wait_ready()
        outcome = mixed.run(cluster, plan, cut=0.1, bound_s=60, log=print)
        pids += [target.pid for target in cluster.targets()]
    assert outcome.deaths >= 2
    assert outcome.tasks == outcome.counts["final.saw"] > 5
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
