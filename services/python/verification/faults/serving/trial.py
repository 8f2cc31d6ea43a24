"""A cluster with a serving pool and clients, and the figures that every scenario reports."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from testkit.waiting import wait_until
from verification.faults.cluster import FaultCluster
from verification.faults.history import read
from verification.faults.options import PoolOptions
from verification.faults.replicas import Target
from verification.faults.scenario_catalogue import ScenarioContext, ViolatedError
from verification.faults.serving.checker import check
from verification.faults.serving.load import DEADLINE_S, Chooser, ServingLoad
from verification.faults.serving.observations import ServingObservations, gather
from verification.faults.serving.workload import WORKLOAD
from verification.faults.wish import Wish
from verification.results import Row

POOL = "online"
READY_S = 60.0


def mostly_short(rng: random.Random) -> Wish:
    """Four of five answers come in one part, after at most 50 ms. One in five is streamed in 2 to 8 parts."""
    if rng.random() < 0.2:
        return Wish(parts=rng.randint(2, 8), part_s=0.02, size=rng.choice((60, 2000)), latency_s=0.01)
    return Wish(latency_s=rng.uniform(0, 0.05), size=rng.choice((60, 400, 20_000)))


@dataclass(frozen=True, slots=True)
class ServingTrial:
    """A running cluster and its clients."""

    cluster: FaultCluster
    load: ServingLoad

    def targets(self, kind: str) -> Sequence[Target]:
        """The processes of a kind that have finished starting, sorted by name."""
        return sorted(self.cluster.at_work(kind), key=lambda target: target.name)

    def wait_replaced(self, target: Target) -> None:
        """Wait until a new process works in place of ``target``."""

        def replaced() -> bool:
            return any(
                present.name == target.name and present.pid != target.pid
                for present in self.cluster.at_work(target.kind)
            )

        wait_until(replaced, READY_S, f"{target.name} to be replaced; see {self.cluster.folder}/logs")

    def count(self, kind: str) -> int:
        """How many faults of a kind (``kill-leader``) were injected."""
        return self.cluster.history.counts.get(f"fault.{kind}", 0)


@contextlib.contextmanager
def trial(
    context: ScenarioContext,
    *,
    groups: int = 3,
    ranks: int = 1,
    clients: int = 16,
    wish: Chooser = mostly_short,
    deadline_s: float = DEADLINE_S,
    pool: Mapping[str, Any] | None = None,
    **options: Any,
) -> Iterator[ServingTrial]:
    """A cluster with one serving pool, two gateways and clients that already send requests."""
    serving = PoolOptions(
        name=POOL,
        workload=WORKLOAD,
        ranks=ranks,
        groups=groups,
        log_runs=True,
        settings={"drain_s": 10.0, "progress_s": 0.25, **(pool or {})},
    )
    with (
        context.cluster(pools=(serving,), **options) as cluster,
        ServingLoad(
            cluster,
            path=f"/v1/pools/{POOL}/serve/",
            clients=clients,
            wish=wish,
            seed=context.seed,
            deadline_s=deadline_s,
        ) as load,
    ):
        load.wait_for(clients)
        yield ServingTrial(cluster, load)


def decide(trial: ServingTrial) -> ServingObservations:
    """Stop the clients and check the history. :raises ViolatedError: if a promise was broken."""
    trial.load.stop()
    return judge(trial.cluster.history.path)


def judge(path: Path) -> ServingObservations:
    """Check a history. :raises ViolatedError: if a promise was broken."""
    verdict = check(read(path))
    if not verdict.ok:
        raise ViolatedError(
            f"{verdict.text()}\nhistory: {path}\n"
            f"to check it again: python -m verification.faults.serving --check {path}"
        )
    return gather(read(path))


def failed_row(what: str, seen: ServingObservations, *, faults: str, wanted: int) -> Row:
    """The row that says that no request failed. Its target is met if there were at least ``wanted`` requests."""
    requests = len(seen.requests)
    sends = [send for request in seen.requests.values() for send in request.sends]
    cut = sum(request.last is not None and request.last.kind == "cut" for request in seen.requests.values())
    again = sum(len(request.sends) - 1 for request in seen.requests.values())
    reruns = sum(len(request.runs) for request in seen.requests.values()) - requests
    slowest = max((send.ended - send.began for send in sends if send.kind == "complete"), default=0.0)
    return Row(
        f"{what}: requests that failed although their answer had not begun",
        0,
        "requests",
        target=f"0 in ≥ {wanted:,}",
        held=requests >= wanted,
        note=f"{requests:,} requests, {faults}; {cut} answers were cut off after they had begun, {reruns} requests "
        f"ran a second time before their answer began, {again} were sent again by their clients; the slowest answer "
        f"took {slowest:.1f} s",
    )
