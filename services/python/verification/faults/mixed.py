"""A mixed run: clients work while a seeded schedule kills processes of Daybreak and its Redis server, and freezes and
preempts leaders.

:func:`run` plays the schedule, then starts everything that is down. It waits until every task has ended or nothing
changes any more. Then it reads the final state into the history, and lets the checker decide.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields

from verification.faults import final_state
from verification.faults.checker import Verdict, check
from verification.faults.cluster import FaultCluster
from verification.faults.history import read
from verification.faults.load import Load
from verification.faults.scenario_catalogue import ViolatedError
from verification.faults.schedule import Fault, Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """The figures of a run that broke no promise."""

    kills: Counter[str]
    """How many processes were killed, by kind of process or by ``at <failpoint>``."""
    states: Counter[str]
    """How many tasks ended in each state."""
    counts: Counter[str]
    """How many lines the history has, by operation and kind."""
    seconds: float

    @property
    def deaths(self) -> int:
        """The number of processes killed."""
        return self.kills.total()

    @property
    def tasks(self) -> int:
        """The number of tasks accepted."""
        return self.states.total()

    def as_json(self) -> str:
        """Serialize to JSON, for another process."""
        return json.dumps({field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        """The inverse of ``as_json``."""
        values = json.loads(text)
        counters = {name: Counter(values[name]) for name in ("kills", "states", "counts")}
        return cls(seconds=values["seconds"], **counters)


def inject(cluster: FaultCluster, fault: Fault, frozen: list[tuple[float, int]]) -> bool:
    """Inject a fault.

    :returns: ``False`` if every process that the fault could hit is frozen or not ready yet. The caller then retries.
    """
    if fault.action == "arm":
        cluster.arm(fault.target)
        return True
    targets = cluster.at_work(fault.target)
    stopped = {pid for _, pid in frozen}
    targets = [target for target in targets if target.pid not in stopped]
    if not targets:
        return False
    target = targets[int(fault.pick * len(targets))]
    if fault.action == "kill":
        cluster.kill(target, down_s=fault.for_s)
    elif fault.action == "preempt":
        cluster.preempt(target)
    elif cluster.freeze(target):
        frozen.append((time.monotonic() + fault.for_s, target.pid))
    return True


def thaw(cluster: FaultCluster, frozen: list[tuple[float, int]], *, all_: bool = False) -> None:
    """Resume the processes whose freeze is over; with ``all_``, all frozen ones."""
    now = time.monotonic()
    for until, pid in [entry for entry in frozen if all_ or entry[0] <= now]:
        frozen.remove((until, pid))
        for target in cluster.targets():
            if target.pid == pid:
                cluster.thaw(target)


def play(cluster: FaultCluster, load: Load, plan: Schedule, *, log: Callable[[str], None]) -> None:
    """Run the clients and the faults of a schedule side by side, until the schedule ends."""
    load.play(plan.submissions)
    began = time.monotonic()
    frozen: list[tuple[float, int]] = []
    remaining, logged_at = list(plan.faults), began
    while (now := time.monotonic()) - began < plan.seconds or remaining:
        for fault in [fault for fault in remaining[:8] if fault.at_s <= now - began]:
            if inject(cluster, fault, frozen):
                remaining.remove(fault)
        thaw(cluster, frozen)
        if now - logged_at >= 10:
            logged_at = now
            kills = deaths(cluster).total()
            log(f"   {now - began:4.0f} s  {kills} killed, {len(load.known)} tasks accepted")
        time.sleep(0.02)
    thaw(cluster, frozen, all_=True)
    unfired = cluster.disarm()
    cluster.history.note("schedule", kind="end", unfired=unfired)


def deaths(cluster: FaultCluster) -> Counter[str]:
    """Processes killed so far: those that the cluster killed, and those that killed themselves at failpoints."""
    killed: Counter[str] = Counter()
    for name, count in cluster.history.counts.items():
        if name.startswith("fault.kill-"):
            killed[name.removeprefix("fault.kill-")] += count
    for failpoint, *_ in cluster.hits():
        killed[f"at {failpoint}"] += 1
    return killed


def settle(cluster: FaultCluster, load: Load, *, bound_s: float) -> Verdict:
    """Start the processes that are on hold, wait until all tasks have ended, read the final state and check the
    history. If nothing changes for ``bound_s``, do not wait longer: the checker then finds the tasks that have not
    ended."""
    cluster.release()
    cluster.wait_ready()
    unended = load.settle_down(bound_s)
    cluster.history.note("settled", left=unended)
    load.wait_clients(bound_s)
    final_state.read_all(load)
    return check(read(cluster.history.path))


def run(
    cluster: FaultCluster, plan: Schedule, *, cut: float, bound_s: float, log: Callable[[str], None]
) -> Outcome:
    """Play a schedule and check the history. :raises ViolatedError: if a promise was broken."""
    began = time.monotonic()
    with Load(cluster, seed=plan.seed, cut=cut) as load:
        play(cluster, load, plan, log=log)
        verdict = settle(cluster, load, bound_s=bound_s)
    states = Counter(line["record"]["state"] for line in read(cluster.history.path) if line["op"] == "final")
    outcome = Outcome(
        kills=deaths(cluster),
        states=states,
        counts=Counter(verdict.counts),
        seconds=time.monotonic() - began,
    )
    if not verdict.ok:
        raise ViolatedError(f"seed {plan.seed}: {verdict.text()}\nhistory: {cluster.history.path}")
    return outcome
