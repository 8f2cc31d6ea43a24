"""Mixed runs: everything at once, by seed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from faults import mixed
from faults.mixed import Outcome
from faults.options import PoolPlan
from faults.registry import Lab, ViolatedError, scenario
from faults.schedule import schedule
from figures import Row

POOLS = (PoolPlan(name="solo", ranks=1, groups=4), PoolPlan(name="pair", ranks=2, groups=2))
BOUND_S = 120.0
"""A task that has not ended so long after the faults have stopped is stuck: its retries back off to a minute."""


def bound(deaths: int) -> str:
    """What no failure in so many tries says, at 95 % confidence."""
    return f"0 in {deaths:,}: below {300 / max(1, deaths):.2g} % a kill (95 %)"


def one_run(
    lab: Lab, *, seed: int, seconds: float, deaths: int, rate: float, cut: float = 0.05, **options: object
) -> Outcome:
    """One mixed run. :raises ViolatedError: with the history's path."""
    with replace(lab, seed=seed).rig(**{"pools": POOLS, **options}) as rig:
        plan = schedule(
            seed=seed,
            seconds=seconds,
            rate=rate,
            deaths=deaths,
            pools=rig.options.pools,
            lease_s=rig.options.lease_s,
        )
        try:
            return mixed.run(rig, plan, cut=cut, bound_s=BOUND_S, say=lab.say)
        except ViolatedError as exc:
            again = (
                f"python -m faults mixed --seed {seed} --seconds {seconds:g} --kills {deaths} --rate {rate:g}"
            )
            raise ViolatedError(f"{exc}\nagain: {again}") from None


def kinds(kills: Counter[str]) -> str:
    """``31 leaders, 4 servers, 12 at failpoints``."""
    at = sum(count for name, count in kills.items() if name.startswith("at "))
    whole = [f"{kills[name]} {name}s" for name in ("leader", "follower", "gateway", "server") if kills[name]]
    return ", ".join([*whole, f"{at} at failpoints"])


def rows_of(outcomes: list[tuple[str, Outcome]], *, target: str) -> list[Row]:
    """The figures of several runs."""
    kills: Counter[str] = Counter()
    counts: Counter[str] = Counter()
    for _, outcome in outcomes:
        kills.update(outcome.kills)
        counts.update(outcome.verdict.counts)
    deaths = kills.total()
    tasks = sum(outcome.tasks for _, outcome in outcomes)
    by_fsync = Counter(name for name, _ in outcomes)
    runs = ", ".join(f"{count} × {name}" for name, count in by_fsync.items())
    what = f"{len(outcomes)} mixed runs ({runs})"
    return [
        Row(f"Tasks lost, {what}", 0, "tasks", target=target, held=True, note=bound(deaths)),
        Row(f"Tasks that succeeded twice, {what}", 0, "tasks", target="0", held=True, note=bound(deaths)),
        Row("Processes killed in them", deaths, "kills", note=kinds(kills)),
        Row("Tasks accepted in them", tasks, "tasks", note=f"{counts['event.saw']:,} events seen by clients"),
    ]


@scenario("mixed", "clients at work while anything is killed, frozen and cut; checked as a whole")
def run_mixed(lab: Lab) -> list[Row]:
    """Short: one run under each fsync policy. Long: fourteen of 180 s, of which four under ``always``."""
    outcomes: list[tuple[str, Outcome]] = []
    plans = [("everysec", 35.0, 60), ("always", 20.0, 30)]
    if lab.long:
        plans = [("always" if run % 4 == 3 else "everysec", 180.0, 220) for run in range(14)]
    for run, (fsync, seconds, deaths) in enumerate(plans):
        lab.say(f"   run {run + 1} of {len(plans)}: seed {lab.seed + run}, appendfsync {fsync}")
        outcome = one_run(lab, seed=lab.seed + run, seconds=seconds, deaths=deaths, rate=5.0, fsync=fsync)
        outcomes.append((fsync, outcome))
    return rows_of(outcomes, target="0 in ≥ 3,000 kills and 14 × 180 s" if lab.long else "0")
