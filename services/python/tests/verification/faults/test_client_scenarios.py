"""Tests of the scenarios of clients: which processes a scenario kills, and what its rows count.

Stand-ins take the place of the cluster and of the load.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from verification.faults.replicas import Target
from verification.faults.scenario_catalogue import ScenarioContext
from verification.faults.scenarios import clients


class CountingCluster:
    """Records the processes that are killed."""

    def __init__(self) -> None:
        self.history = SimpleNamespace(counts=Counter[str]())
        self.killed: list[str] = []

    def targets(self, kind: str) -> list[Target]:
        return [Target(kind=kind, name=f"{kind}-{number}", pid=number) for number in range(2)]

    def kill(self, target: Target) -> None:
        self.killed.append(target.name)
        self.history.counts[f"fault.kill-{target.kind}"] += 1

    def hold(self, name: str) -> None: ...

    def release(self) -> None: ...

    def wait_ready(self) -> None: ...


class CountingLoad:
    """Accepts every task. Each call of ``wait_clients`` counts 300 more cut streams."""

    tenants = ("ada",)

    def __init__(self, *_: object, **__: object) -> None:
        self.network = SimpleNamespace(cuts=0)
        self.networks = {"ada": self.network}
        self.submitted: dict[str, str] = {}

    def __enter__(self) -> CountingLoad:
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, pool: str, *, message: str, **_: object) -> str:
        task = f"{pool}_{len(self.submitted)}"
        self.submitted[task] = message
        return task

    def read(self, *_: object) -> None: ...

    def spawn(self, _: object) -> None: ...

    def settle_down(self, _: float) -> None: ...

    def wait_clients(self, _: float) -> None:
        self.network.cuts += 300


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> CountingCluster:
    """The stand-in that the next scenario uses as its cluster."""
    counting = CountingCluster()

    @contextmanager
    def started(*_: object, **__: object) -> Iterator[CountingCluster]:
        yield counting

    monkeypatch.setattr(ScenarioContext, "cluster", started)
    monkeypatch.setattr(clients, "Load", CountingLoad)
    monkeypatch.setattr(clients, "wait_running", lambda *_: None)
    return counting


def states(monkeypatch: pytest.MonkeyPatch, *, failed: str) -> None:
    """Make all tasks succeed, except the task whose message equals the argument ``failed``."""

    def decide(_: object, load: CountingLoad) -> list[dict[str, Any]]:
        by_message = {message: task for task, message in load.submitted.items()}
        return [
            {"id": task, "state": "failed" if task == by_message.get(failed) else "succeeded"}
            for task in load.submitted
        ]

    monkeypatch.setattr(clients, "decide", decide)


def test_cuts_kills_the_gateways_in_turn(cluster: CountingCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scenario needs 1,000 cuts, so it runs four rounds of 300."""
    states(monkeypatch, failed="")
    (row,) = clients.run_cuts(ScenarioContext())
    assert cluster.killed == ["gateway-0", "gateway-1"] * 2
    assert "4 gateways killed" in row.note


@pytest.mark.parametrize(("failed", "succeeded"), [("", 10), ("before", 10), ("dead1", 9)])
def test_all_dead_counts_the_tasks_submitted_while_every_group_was_dead(
    cluster: CountingCluster, monkeypatch: pytest.MonkeyPatch, failed: str, succeeded: int
) -> None:
    """Each of the two rounds also submits a task before it kills the groups. The row does not count that task."""
    states(monkeypatch, failed=failed)
    (row,) = clients.run_all_dead(ScenarioContext())
    assert (row.value, row.target, row.held) == (succeeded, "all 10", succeeded == 10)
    assert f"{len(cluster.killed)} kills" in row.note
