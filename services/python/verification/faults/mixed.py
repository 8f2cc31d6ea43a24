"""A mixed run: clients at work while anything dies, by a schedule that a seed makes."""

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
from verification.faults.registry import ViolatedError
from verification.faults.schedule import Fault, Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a run that broke no promise came to."""

    kills: Counter[str]
    """Processes that were killed and seen gone: by what they were, and failpoints by name."""
    states: Counter[str]
    """How its tasks ended."""
    counts: Counter[str]
    """Lines of the history, by operation and kind."""
    seconds: float

    @property
    def deaths(self) -> int:
        """All processes that were killed."""
        return self.kills.total()

    @property
    def tasks(self) -> int:
        """All tasks that were accepted."""
        return self.states.total()

    def as_json(self) -> str:
        """For another process."""
        return json.dumps({one.name: getattr(self, one.name) for one in fields(self)})

    @classmethod
    def from_json(cls, text: str) -> Outcome:
        """The inverse."""
        told = json.loads(text)
        return cls(
            seconds=told["seconds"], **{name: Counter(told[name]) for name in ("kills", "states", "counts")}
        )


def inflict(cluster: FaultCluster, fault: Fault, frozen: list[tuple[float, int]]) -> bool:
    """Do one fault to one of those at work; ``False``: there is none now, so it must wait."""
    if fault.what == "arm":
        cluster.arm(fault.whom)
        return True
    targets = cluster.at_work(fault.whom)
    stopped = {pid for _, pid in frozen}
    targets = [one for one in targets if one.pid not in stopped]
    if not targets:
        return False
    target = targets[int(fault.pick * len(targets))]
    if fault.what == "kill":
        cluster.kill(target, down_s=fault.for_s)
    elif fault.what == "preempt":
        cluster.preempt(target)
    elif cluster.freeze(target):
        frozen.append((time.monotonic() + fault.for_s, target.pid))
    return True


def thaw(cluster: FaultCluster, frozen: list[tuple[float, int]], *, all_: bool = False) -> None:
    """Let those go on whose time is over."""
    now = time.monotonic()
    for item in [one for one in frozen if all_ or one[0] <= now]:
        frozen.remove(item)
        for target in cluster.targets():
            if target.pid == item[1]:
                cluster.thaw(target)


def play(cluster: FaultCluster, load: Load, plan: Schedule, *, say: Callable[[str], None]) -> None:
    """Clients and faults, side by side, to the end of the schedule."""
    load.play(plan.submissions)
    began = time.monotonic()
    frozen: list[tuple[float, int]] = []
    left, said = list(plan.faults), began
    while (now := time.monotonic()) - began < plan.seconds or left:
        for fault in [one for one in left[:8] if one.at_s <= now - began]:
            if inflict(cluster, fault, frozen):
                left.remove(fault)
        thaw(cluster, frozen)
        if now - said >= 10:
            said = now
            kills = deaths(cluster).total()
            say(f"   {now - began:4.0f} s  {kills} killed, {len(load.known)} tasks accepted")
        time.sleep(0.02)
    thaw(cluster, frozen, all_=True)
    unfired = cluster.disarm()
    cluster.history.note("schedule", kind="end", unfired=unfired)


def deaths(cluster: FaultCluster) -> Counter[str]:
    """Processes killed so far: by the cluster, and by their own hand at failpoints."""
    found: Counter[str] = Counter()
    for name, count in cluster.history.counts.items():
        if name.startswith("fault.kill-"):
            found[name.removeprefix("fault.kill-")] += count
    for point, *_ in cluster.hits():
        found[f"at {point}"] += 1
    return found


def settle(cluster: FaultCluster, load: Load, *, bound_s: float) -> Verdict:
    """Let everything end, read all there is, and decide."""
    cluster.release()
    cluster.wait_ready()
    left = load.settle_down(bound_s)
    cluster.history.note("settled", left=left)
    load.wait_clients(bound_s)
    final_state.read_all(load)
    return check(read(cluster.history.path))


def run(
    cluster: FaultCluster, plan: Schedule, *, cut: float, bound_s: float, say: Callable[[str], None]
) -> Outcome:
    """The whole of it. :raises ViolatedError: when a promise was broken."""
    began = time.monotonic()
    with Load(cluster, seed=plan.seed, cut=cut) as load:
        play(cluster, load, plan, say=say)
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
