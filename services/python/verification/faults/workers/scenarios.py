"""Tests what Daybreak promises for models on workers while one part after the other dies, and while all
workers are restarted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from testkit.waiting import wait_until
from verification.faults.cluster import FaultCluster
from verification.faults.options import PoolOptions
from verification.faults.scenario_catalogue import ScenarioContext, ViolatedError, scenario
from verification.faults.serving.load import ServingLoad
from verification.faults.serving.observations import ServingObservations
from verification.faults.serving.trial import failed_row, judge, mostly_short
from verification.faults.workers.fleet import MODEL, READY_S, Fleet
from verification.results import Row

WORKERS = 3
LEASE_S = 10.0
"""The default of `workers.lease_s`, which is longer than each outage in these scenarios. If the lease of a
worker ended in an outage, its requests whose answers have not begun would be sent to another worker, and the
first worker would compute answers that no client reads."""
_PATH = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class FleetTrial:
    """A running fleet of workers, and the clients that send it requests."""

    cluster: FaultCluster
    fleet: Fleet
    load: ServingLoad

    def decide(self) -> ServingObservations:
        """Stop the clients, then the workers, and check the history.

        :raises ViolatedError: if a promise was broken.
        """
        self.load.stop()
        self.fleet.close()
        self.fleet.record_engines()
        self.cluster.history.flush()
        return judge(self.cluster.history.path)


@contextlib.contextmanager
def trial(context: ScenarioContext, *, clients: int = 12) -> Iterator[FleetTrial]:
    """Two gateways, three workers with a replica each, and clients that already send requests."""
    settings = {"workers": {"heartbeat_s": 0.3, "lease_s": LEASE_S}}
    with (
        context.cluster(pools=(PoolOptions(groups=0),), settings=settings) as cluster,
        Fleet(cluster, workers=WORKERS) as fleet,
        ServingLoad(
            cluster,
            path=_PATH,
            headers={"Daybreak-Model": MODEL},
            clients=clients,
            wish=mostly_short,
            seed=context.seed,
        ) as load,
    ):
        load.wait_for(clients)
        yield FleetTrial(cluster, fleet, load)


def kill_worker(run: FleetTrial, number: int) -> None:
    """Kill a worker, and its engine with it."""
    run.fleet.kill_worker(number)


def kill_engine(run: FleetTrial, number: int) -> None:
    """Kill an engine. The worker restarts the engine."""
    run.fleet.kill_engine(number)


def kill_manager(run: FleetTrial, _number: int) -> None:
    """Kill the gateway whose manager makes the plans. The manager of the other gateway takes over."""
    target = run.fleet.manager_gateway()
    before = run.fleet.manager()
    run.cluster.kill(target, down_s=2.0)
    wait_until(lambda: run.fleet.manager() not in (None, before), READY_S, "another gateway to plan")


def kill_gateway(run: FleetTrial, number: int) -> None:
    """Kill a gateway. Its clients use the other one, and its workers wait for its return."""
    gateways = sorted(run.cluster.at_work("gateway"), key=lambda target: target.name)
    run.cluster.kill(gateways[number % len(gateways)], down_s=0.5)
    wait_until(
        lambda: len(run.cluster.at_work("gateway")) == len(gateways), READY_S, "the gateway to be back"
    )


def restart_store(run: FleetTrial, number: int) -> None:
    """Restart the store's server with SIGTERM, or kill it and keep it down for several heartbeats."""
    (target,) = run.cluster.at_work("server")
    if number % 2:
        run.cluster.kill(target, down_s=3.0)
    else:
        run.cluster.hold("server", for_s=0.5)
        run.cluster.preempt(target)
    wait_until(
        lambda: any(found.pid != target.pid for found in run.cluster.at_work("server")),
        READY_S,
        "the server to be back",
    )


FAULTS: tuple[Callable[[FleetTrial, int], None], ...] = (
    kill_worker,
    kill_engine,
    kill_manager,
    kill_worker,
    restart_store,
    restart_store,
    kill_gateway,
    kill_engine,
)


@scenario(
    "workers", "workers, engines, the manager, gateways and the store die one after the other: nothing fails"
)
def run_workers(context: ScenarioContext) -> list[Row]:
    """Inject each fault while clients send requests. Between two faults every worker gets its replica back."""
    rounds, wanted = context.repeats(1, 14), context.repeats(1500, 12_000)
    with trial(context) as run:
        for number in range(rounds):
            for index, inject in enumerate(FAULTS):
                inject(run, number + index)
                run.load.wait_for(20)
                run.fleet.wait_ready()
        run.load.wait_for(max(0, wanted - run.load.finished))
        faults = _faults(run)
        seen = run.decide()
    return [failed_row("Models on workers", seen, faults=faults, wanted=wanted), _orphans(seen)]


@scenario(
    "workers-rolling", "all workers are restarted by SIGTERM, one after the other: no answer breaks off"
)
def run_rolling(context: ScenarioContext) -> list[Row]:
    """Restart each worker in turn. The next restart follows when the restarted worker has a ready replica again."""
    rounds, wanted = context.repeats(1, 10), context.repeats(1500, 12_000)
    with trial(context) as run:
        for number in range(rounds * WORKERS):
            run.fleet.restart_worker(number)
            run.load.wait_for(20)
            run.fleet.wait_ready()
        run.load.wait_for(max(0, wanted - run.load.finished))
        faults = _faults(run)
        seen = run.decide()
    cut = sum(send.kind == "cut" for request in seen.requests.values() for send in request.sends)
    if cut:
        raise ViolatedError(f"{cut} answers were cut off, although each worker had the time to finish")
    return [
        failed_row("Rolling restart of workers", seen, faults=faults, wanted=wanted),
        _orphans(seen),
    ]


def _faults(run: FleetTrial) -> str:
    counts = {
        name.removeprefix("fault."): count
        for name, count in run.cluster.history.counts.items()
        if name.startswith("fault.")
    }
    return ", ".join(f"{count} × {kind}" for kind, count in counts.items())


def _orphans(seen: ServingObservations) -> Row:
    deaths = sum(fault.kind in ("kill-worker", "preempt-worker") for fault in seen.faults)
    return Row(
        "Engines that outlived their worker",
        len(seen.orphans),
        "engines",
        target="0",
        held=not seen.orphans,
        note=f"{deaths} workers killed or stopped",
    )
